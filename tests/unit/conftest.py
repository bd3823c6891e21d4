"""Most unit tests take milliseconds. Those that start programs or try thousands of cases do not."""

from __future__ import annotations

from pathlib import Path

import pytest

#: `make quick` leaves these modules out; `make unit` and `make test` run them.
SLOW = frozenset(
    {
        "test_answers",
        "test_arm_system",
        "test_batches",
        "test_board_install",
        "test_client",
        "test_client_async",
        "test_client_blocks",
        "test_client_connect",
        "test_client_processes",
        "test_codec",
        "test_conformance",
        "test_deliveries",
        "test_device_registry",
        "test_fast_client",
        "test_file_names",
        "test_files",
        "test_fingerprint",
        "test_formats",
        "test_inbox",
        "test_join_port",
        "test_launch",
        "test_lean_start",
        "test_operators_cli",
        "test_pages",
        "test_planted",
        "test_public_names",
        "test_scheduler_devices",
        "test_scheduler_mute",
        "test_service",
        "test_service_catalogue",
        "test_service_history",
        "test_simulate",
        "test_simulate_cli",
        "test_start",
        "test_streams_events",
        "test_submissions",
        "test_text_form",
    }
)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Do not even import what `make quick` leaves out."""
    return True if config.option.markexpr == "not slow" and collection_path.stem in SLOW else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of the slow modules."""
    for item in items:
        if item.path.stem in SLOW and item.path.parent.name == "unit":
            item.add_marker(pytest.mark.slow)
