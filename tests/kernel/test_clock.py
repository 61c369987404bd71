"""The coarse clock of the programs, where jiffies and CLOCK_MONOTONIC do not go together as they did at the start."""

from __future__ import annotations

import time

import pytest

from lab.prog_run import Programs
from netobs.datapath.tick import EVICTIONS
from tests.kernel.numbered import TICK_NS, packet

pytestmark = pytest.mark.kernel

FAR_NS = 1000 * TICK_NS


def _error_ns(programs: Programs) -> int:
    """How far the time of a packet is behind the clock."""
    programs.send(packet())
    now_ns = time.monotonic_ns()
    (row,) = programs.evict()
    return now_ns - int(row["last_ns"])


def _move(programs: Programs, drift_ns: int) -> None:
    """As if jiffies had gained so much since the start."""
    coarse = programs.datapath._clock
    assert coarse is not None
    coarse.offset_ns += drift_ns
    programs.datapath.state.set_tick_offset(coarse.offset_ns)


@pytest.mark.parametrize(("drift_ns", "evictions"), [(FAR_NS, 1), (-FAR_NS, EVICTIONS)])
def test_evictions_correct_the_coarse_clock(drift_ns: int, evictions: int) -> None:
    with Programs(max_flows=64) as programs:
        assert abs(_error_ns(programs)) < FAR_NS // 2
        _move(programs, drift_ns)
        assert abs(_error_ns(programs) + drift_ns) < FAR_NS // 2
        for _ in range(evictions):
            programs.evict()
        assert abs(_error_ns(programs)) < FAR_NS // 2


def test_precise_time_needs_no_correction() -> None:
    with Programs(max_flows=64, precise_time=True) as programs:
        assert programs.datapath._clock is None
        assert 0 <= _error_ns(programs) < FAR_NS
