"""A question that netobs cannot answer harms nobody but the one who has asked."""

from __future__ import annotations

import logging

import pytest

from netobs.base.errors import CaptureError, NetobsError
from netobs.daemon.control import contained


def test_an_unexpected_error_goes_to_the_log_and_to_who_asks(caplog: pytest.LogCaptureFixture) -> None:
    def fails() -> str:
        nothing: dict[str, str] = {}
        return nothing["there"]

    with caplog.at_level(logging.ERROR, "netobs"), pytest.raises(NetobsError, match="an unexpected error; see the"):
        contained(fails)()
    (record,) = caplog.records
    assert record.exc_info is not None
    assert record.exc_info[0] is KeyError


def test_what_is_expected_passes(caplog: pytest.LogCaptureFixture) -> None:
    def refuses() -> str:
        raise CaptureError("no")

    assert contained(lambda: "all is well")() == "all is well"
    with pytest.raises(CaptureError):
        contained(refuses)()
    assert not caplog.records
