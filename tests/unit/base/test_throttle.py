"""What others can make the log say is bounded."""

from __future__ import annotations

from netobs.base.throttle import LogThrottle

MINUTE = 60_000_000_000


def test_once_in_a_minute() -> None:
    throttle = LogThrottle()
    assert throttle.may_say("a", 0)
    assert not throttle.may_say("a", MINUTE - 1)
    assert throttle.may_say("b", MINUTE - 1)
    assert throttle.may_say("a", MINUTE)


def test_a_scan_from_everywhere_is_bounded() -> None:
    throttle = LogThrottle(remembered=64)
    said = [number for number in range(10_000) if throttle.may_say(number, number)]
    assert said == list(range(64))
    assert len(throttle) == 64
    assert throttle.may_say("later", MINUTE + 9_999)
    assert throttle.withheld == 10_000 - 64
