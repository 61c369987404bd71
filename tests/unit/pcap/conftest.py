"""What the tests of the packet server have in common."""

from __future__ import annotations

import logging

import pytest


@pytest.fixture(autouse=True)
def _info(caplog: pytest.LogCaptureFixture) -> None:
    """The log as an operator has it."""
    caplog.set_level(logging.INFO, logger="netobs.pcap")
