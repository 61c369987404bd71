"""A spool that fills up, and a table that is full again and again, are said once, and not for every reading."""

from __future__ import annotations

import logging

import pytest

from netobs.base.clock import NS_PER_S
from netobs.daemon.fill_warnings import OFTEN, OFTEN_NS, TABLE_AGAIN_NS, SpoolWarning, TableWarning

MIB = 1 << 20


def test_a_spool_that_fills_up_is_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "netobs")
    spool = SpoolWarning()
    for used_mib in (0, 50, 79, 80, 95, 100, 70, 85, 60):
        spool.see("main", used_mib * MIB, 100 * MIB)
    assert caplog.messages == [
        'collector "main": the spool fills up: 80 of 100 MiB; when it is full, its oldest flows are lost: check the '
        "collector, or raise spool_max"
    ]
    spool.see("main", 59 * MIB, 100 * MIB)
    assert caplog.messages[1:] == ['collector "main": the spool has room again']
    spool.see("main", 81 * MIB, 100 * MIB)
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO", "WARNING"]


def test_without_a_spool_nothing_is_said(caplog: pytest.LogCaptureFixture) -> None:
    SpoolWarning().see("main", None, MIB)
    assert caplog.messages == []


def test_a_table_that_is_full_now_and_then_is_nothing(caplog: pytest.LogCaptureFixture) -> None:
    table = TableWarning()
    for number in range(100):
        table.full(number * OFTEN_NS // (OFTEN - 1))
    assert caplog.messages == []


def test_a_table_that_is_full_again_and_again_is_a_line_an_hour(caplog: pytest.LogCaptureFixture) -> None:
    table = TableWarning()
    for second in range(1, TABLE_AGAIN_NS // NS_PER_S + OFTEN):
        table.full(second * NS_PER_S)
    assert len(caplog.messages) == 1
    table.full(TABLE_AGAIN_NS + OFTEN * NS_PER_S)
    assert len(caplog.messages) == 2
    assert caplog.messages[0].startswith(f"the flow table was full {OFTEN} times within a minute: ")
