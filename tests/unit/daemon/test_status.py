from __future__ import annotations

from netobs.daemon.status import Condition, StatusLine

S = 1_000_000_000


def test_the_rate_is_that_since_the_last_line() -> None:
    status = StatusLine(10 * S)
    first = status.text(Condition(3, 500, 1, 2, 4, 7), 15 * S)
    assert first == (
        "measuring 3 interfaces, 100 flows/s, 1 of 2 collectors up; packets lost: 4 before a flow, 7 not sent"
    )
    assert ", 20 flows/s," in status.text(Condition(3, 520, 2, 2, 4, 7), 15 * S + S // 2)
    assert ", 0 flows/s," in status.text(Condition(3, 520, 2, 2, 4, 7), 20 * S)


def test_a_reload_that_failed_is_said_until_one_succeeds() -> None:
    status = StatusLine(0)
    condition = Condition(1, 0, 1, 1, 0, 0)
    status.reload_failed = True
    assert status.text(condition, S).endswith("; the last reload failed: see the log")
    status.reload_failed = False
    assert "reload" not in status.text(condition, 2 * S)
