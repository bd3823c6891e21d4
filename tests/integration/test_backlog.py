"""More images than may wait are refused in words, and the ones before them are done."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.processes import photo, private_fog

pytestmark = pytest.mark.broker


def test_over_the_backlog_limit_an_image_is_refused_with_the_reason(
    broker: object, tmp_path: Path
) -> None:
    del broker
    limits = {"LIMITS__MAX_JOBS": "1", "LIMITS__MAX_WAITING": "1"}
    with private_fog(tmp_path, **limits, GATEWAY__DELIVER="reply", GATEWAY__LOCAL="never") as fog:
        image = fog.save("in.png", photo(100, 100)).read_bytes()
        fog.serve()
        with fog.probe("fog/v1/replies/+/status", client_id="me") as me:
            for name in ("one", "two"):
                me.publish(f"fog/v1/submit/edges/{name}", image)
                me.message(f"fog/v1/replies/{name}/status", within=60)
            me.publish("fog/v1/submit/edges/three", image)
            said = json.loads(me.message("fog/v1/replies/three/status", within=60).payload)
            assert said["state"] == "failed"
            assert "as many as limits.max_waiting allows; try again later" in said["error"]
            fog.fleet("eya")
            for name in ("one", "two"):
                while said["state"] != "done":
                    topic = f"fog/v1/replies/{name}/status"
                    said = json.loads(me.message(topic, within=60).payload)
                said = {"state": "next"}
