"""Times of the programs: jiffies against CLOCK_MONOTONIC, and slot times, which wrap after 73 minutes."""

from __future__ import annotations

import numpy as np
import pytest

from netobs.base import clock
from netobs.datapath.layout import SLOT_TIME_SHIFT
from netobs.datapath.percpu_array import TIME_MARGIN_NS, _unwrap
from netobs.datapath.tick import EVICTIONS, SAMPLES, CoarseClock

OFFSET_NS = 123_456_789_012_345
UNIT_NS = 1 << SLOT_TIME_SHIFT
WRAP_NS = UNIT_NS << 32
HOUR_NS = 3600 * clock.NS_PER_S


class Host:
    """The clocks of a made-up host; ``step_ns`` pass between two readings."""

    def __init__(self, now_ns: int, step_ns: int, tick_ns: int, offset: int) -> None:
        self._now_ns, self._step_ns, self._tick_ns, self._offset = now_ns, step_ns, tick_ns, offset
        self.readings = 0

    def read(self) -> tuple[int, int]:
        self._now_ns += self._step_ns
        self.readings += 1
        return self.jiffies(self._now_ns), self._now_ns

    def jiffies(self, now_ns: int) -> int:
        return (now_ns - self._offset) // self._tick_ns

    def pass_on(self, interval_ns: int, drift_ns: int = 0) -> None:
        """So much later; jiffies have lost ``drift_ns``, or gained where it is negative."""
        self._now_ns += interval_ns
        self._offset += drift_ns

    def error_ns(self, offset_ns: int) -> int:
        """How far a coarse time by that offset is behind the clock now."""
        return self._now_ns - self.jiffies(self._now_ns) * self._tick_ns - offset_ns


def started(host: Host, tick_ns: int) -> CoarseClock:
    coarse = CoarseClock(host.read, tick_ns)
    coarse.start()
    return coarse


@pytest.mark.parametrize("tick_ns", [1_000_000, 3_333_333, 4_000_000, 10_000_000])
@pytest.mark.parametrize("offset", [0, OFFSET_NS, -(300 * clock.NS_PER_S)])
def test_coarse_time_is_within_a_tick_and_never_ahead_of_the_clock(tick_ns: int, offset: int) -> None:
    """Whatever the phase of the first reading. The readings spread over a tick, as the pauses between them make them,
    or a little more widely."""
    for phase in range(0, tick_ns, tick_ns // 17):
        for step_ns in (tick_ns * 12 // (10 * SAMPLES), tick_ns // 5):
            start_ns = max(offset, 0) + clock.NS_PER_S + phase
            host = Host(start_ns, step_ns, tick_ns, offset)
            found = started(host, tick_ns).offset_ns
            assert host.readings == SAMPLES
            assert offset - tick_ns // 4 <= found <= offset
            now_ns = start_ns + HOUR_NS
            coarse_ns = host.jiffies(now_ns) * tick_ns + found
            assert 0 <= now_ns - coarse_ns < tick_ns + tick_ns // 4 + 1


def test_jiffies_that_began_before_the_clock_have_an_earlier_offset() -> None:
    """INITIAL_JIFFIES is five minutes before a wrap of 32 bits: 64-bit jiffies are ahead of the clock by that much."""
    tick_ns, jiffies_at_0 = 1_000_000, (1 << 32) - 300_000
    host = Host(clock.NS_PER_S, tick_ns // 7, tick_ns, -jiffies_at_0 * tick_ns)
    assert started(host, tick_ns).offset_ns == pytest.approx(-jiffies_at_0 * tick_ns, abs=tick_ns)


EVICTION_NS = 1_000_100_003  # no multiple of a tick


@pytest.mark.parametrize("tick_ns", [1_000_000, 3_333_333, 4_000_000, 10_000_000])
def test_clocks_in_step_need_no_correction(tick_ns: int, caplog: pytest.LogCaptureFixture) -> None:
    host = Host(OFFSET_NS + clock.NS_PER_S, tick_ns * 12 // (10 * SAMPLES), tick_ns, OFFSET_NS)
    coarse = started(host, tick_ns)
    for _ in range(1000):
        host.pass_on(EVICTION_NS)
        assert not coarse.follow()
    assert caplog.records == []


@pytest.mark.parametrize("drift_ns", [500_000, -500_000, 20_000, -20_000])
def test_drift_is_followed_and_said_once(drift_ns: int, caplog: pytest.LogCaptureFixture) -> None:
    """500 ppm is the most by which CLOCK_MONOTONIC is slewed."""
    tick_ns = 4_000_000
    host = Host(OFFSET_NS + clock.NS_PER_S, tick_ns * 12 // (10 * SAMPLES), tick_ns, OFFSET_NS)
    coarse = started(host, tick_ns)
    for _ in range(2000):
        host.pass_on(EVICTION_NS, drift_ns)
        coarse.follow()
        assert 0 <= host.error_ns(coarse.offset_ns) < 3 * tick_ns + EVICTIONS * abs(drift_ns)
    (record,) = caplog.records
    assert "have drifted from its clock by" in record.getMessage()
    assert "capture.precise_time" in record.getMessage()


def test_one_late_reading_is_no_drift() -> None:
    """Where an interrupt of the timer was late, jiffies catch up."""
    tick_ns = 4_000_000
    host = Host(OFFSET_NS + clock.NS_PER_S, tick_ns * 12 // (10 * SAMPLES), tick_ns, OFFSET_NS)
    coarse = started(host, tick_ns)
    for number in range(100):
        late_ns = 50 * tick_ns * (number % EVICTIONS == 1)
        host.pass_on(EVICTION_NS, late_ns)
        assert not coarse.follow()
        host.pass_on(0, -late_ns)


def slot_times(times_ns: list[int]) -> np.ndarray[tuple[int], np.dtype[np.uint32]]:
    """As the programs store them."""
    return np.array([(time_ns >> SLOT_TIME_SHIFT) & 0xFFFF_FFFF for time_ns in times_ns], dtype="<u4")


NOW = {
    "a second after boot": clock.NS_PER_S,
    "an hour after boot": HOUR_NS,
    "before the first wrap": WRAP_NS - 1,
    "at the first wrap": WRAP_NS,
    "after the first wrap": WRAP_NS + clock.NS_PER_S,
    "margin before the wrap": WRAP_NS - TIME_MARGIN_NS,
    "a year after boot": 365 * 24 * HOUR_NS,
    "some years after boot, at a wrap": 50_000 * WRAP_NS + 5,
}


@pytest.mark.parametrize("name", NOW)
def test_slot_times_are_unwrapped(name: str) -> None:
    """For flows up to an hour old, the longest eviction interval, and for packets that came since ``now``."""
    now_ns = NOW[name]
    ages_ns = [0, 1, UNIT_NS, clock.NS_PER_S, 60 * clock.NS_PER_S, HOUR_NS - 1, HOUR_NS, HOUR_NS + 10 * clock.NS_PER_S]
    times_ns = [now_ns - age_ns for age_ns in ages_ns if age_ns <= now_ns]
    times_ns += [now_ns + clock.NS_PER_S, now_ns + TIME_MARGIN_NS]
    unwrapped = _unwrap(slot_times(times_ns), now_ns + TIME_MARGIN_NS)
    assert unwrapped.dtype == np.dtype("<u8")
    assert unwrapped.tolist() == [time_ns // UNIT_NS * UNIT_NS for time_ns in times_ns]


def test_an_hour_and_the_margin_are_less_than_a_wrap() -> None:
    """Else a flow of the longest eviction interval would seem to have begun later."""
    assert HOUR_NS + TIME_MARGIN_NS < WRAP_NS - HOUR_NS // 6


def test_order_of_times_is_kept_over_the_wrap() -> None:
    times_ns = list(range(WRAP_NS - HOUR_NS // 2, WRAP_NS + HOUR_NS // 2, HOUR_NS // 1000))
    unwrapped = _unwrap(slot_times(times_ns), times_ns[-1] + TIME_MARGIN_NS)
    assert (np.diff(unwrapped.astype(np.int64)) > 0).all()
    assert (np.array(times_ns) - unwrapped.astype(np.int64) < UNIT_NS).all()


def test_no_times() -> None:
    assert _unwrap(slot_times([]), HOUR_NS).tolist() == []
