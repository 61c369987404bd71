"""The command line of the service, which starts the daemon without click."""

from __future__ import annotations

from pathlib import Path

import pytest

from netobs import DEFAULT_CONF
from netobs.cli.main import cli
from netobs.cli.start import configuration_of

STARTS = {(): Path(DEFAULT_CONF), ("--conf", "flows.toml"): Path("flows.toml"), ("--conf", ""): Path()}
OTHERS = (
    ("--conf",), ("--conf=flows.toml",), ("--conf", "--dry-run"), ("--conf", "flows.toml", "--dry-run"), ("--dry-run",),
    ("--help",), ("listen",), ("flows.toml",), ("reload", "1"),
)  # fmt: skip


@pytest.mark.parametrize("arguments", STARTS)
def test_a_start_reads_the_file_that_click_would_read(arguments: tuple[str, ...]) -> None:
    with cli.make_context("netobs", list(arguments)) as context:
        assert context.params == {"conf": STARTS[arguments], "dry_run": False}
    assert configuration_of(arguments) == STARTS[arguments]


@pytest.mark.parametrize("arguments", OTHERS)
def test_all_else_is_for_click(arguments: tuple[str, ...]) -> None:
    assert configuration_of(arguments) is None


def test_completions_are_for_click(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_NETOBS_COMPLETE", "bash_source")
    assert configuration_of(()) is None
