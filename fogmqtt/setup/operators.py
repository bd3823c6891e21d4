"""The plug-ins and model files of a configuration, for this process and its children."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from fogmqtt.operators.api import registry

if TYPE_CHECKING:
    from fogmqtt.config import GatewayConfig


def use_operators(config: GatewayConfig, *, serves: bool = False) -> None:
    """Let this process and its children find the configured plug-ins and model files.

    `serves`: others name the models. A plug-in whose import ends or hangs a process is skipped,
    and named in `registry.problems`.
    """
    from fogmqtt.conformance.runner import fatal_imports

    set_model_folder(config.models, only=serves)
    registry.plug_in(config.plugins)
    fatal = fatal_imports(config.plugins)
    if fatal:
        registry.plug_in(config.plugins, fatal)
    registry.import_plug_ins()


def set_model_folder(folder: str, *, only: bool) -> None:
    """Let operators in this process and its children find model files in this folder.

    `only`: and nowhere else, since others name the models.
    """
    from fogmqtt.config.settings import PREFIX

    os.environ[f"{PREFIX}MODELS"] = str(Path(folder).absolute())
    os.environ.pop("_FOGMQTT_ONLY_MODELS", None)
    if only:
        os.environ["_FOGMQTT_ONLY_MODELS"] = "1"
