"""``flow_table = "percpu_hash"``: its halves, batches and stale entries."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import pytest

from lab.prog_run import Programs, get, put
from netobs.datapath.percpu_hash import CLOCK_SLACK_NS
from netobs.flow.records import METRICS, Records
from netobs.kernel import libbpf
from tests.kernel.numbered import fill, key_of, packet

pytestmark = pytest.mark.kernel


@pytest.fixture(scope="module")
def programs() -> Iterator[Programs]:
    with Programs(max_flows=1024, flow_table="percpu_hash") as loaded:
        yield loaded


def test_packets_go_to_the_other_half_after_an_eviction(programs: Programs) -> None:
    halves = [programs.map_fd(name) for name in programs.table.MAPS]
    values_bytes = libbpf.possible_cpus() * METRICS.itemsize
    programs.evict()
    places = []
    for _ in range(3):
        programs.send(packet())
        key = key_of(0)
        places.append([get(fd, key, values_bytes) is not None for fd in halves])
        (row,) = programs.evict()
        assert row["packets"] == 1
        assert all(get(fd, key, values_bytes) is None for fd in halves)
    assert places[0] != places[1]
    assert places[0] == places[2]
    assert sorted(places[0]) == [False, True]


@pytest.mark.parametrize("batch", [1, 3, 64, 1000])
def test_more_flows_than_a_batch(batch: int) -> None:
    """A batch of 1 is smaller than some bucket, which the kernel answers with ENOSPC."""
    with Programs(batch=batch, max_flows=4096, flow_table="percpu_hash") as programs:
        for _ in range(2):
            with programs.accounting() as observed:
                fill(programs, 2000)
            records = observed[0].records
            assert len(np.unique(records["src_addr"], axis=0)) == 2000
            assert len(records) == int(records["packets"].sum()) == 2000
        if batch != 3:  # whether some bucket has four is up to the hash
            assert (len(programs.table._reader._keys) > batch) == (batch == 1)


def _stale_row(programs: Programs, last_ns: int) -> None:
    """Puts an element into the quiet half as if a CPU's value of an older life of it had been left there."""
    values = np.zeros(libbpf.possible_cpus(), METRICS)
    values["packets"][0], values["octets"][0] = 1000, 28000
    values["first_ns"][0] = values["last_ns"][0] = last_ns
    quiet = 1 - programs.datapath.state.active_half
    put(programs.map_fd(programs.table.MAPS[quiet]), key_of(0), values)


def _evict_twice(programs: Programs) -> Records:
    return np.concatenate([programs.evict(), programs.evict()])


def test_values_from_before_the_last_eviction_are_dropped(programs: Programs) -> None:
    _evict_twice(programs)
    stale = programs.table.stale
    _stale_row(programs, last_ns=1)
    assert len(_evict_twice(programs)) == 0
    assert programs.table.stale == stale + 1


def test_values_of_now_are_kept(programs: Programs) -> None:
    _evict_twice(programs)
    stale = programs.table.stale
    _stale_row(programs, last_ns=time.monotonic_ns())
    assert _evict_twice(programs)["packets"].tolist() == [1000]
    assert programs.table.stale == stale


def test_failed_eviction_loses_nothing(programs: Programs) -> None:
    """Flows that it left are older than the stale-entry rule allows, and are no stale entries."""
    _evict_twice(programs)
    fds, stale = programs.table._fds, programs.table.stale
    programs.send(packet(), repeat=7)
    try:
        programs.table._fds = [-1, -1]
        with pytest.raises(OSError, match="batch lookup and delete"):
            programs.evict()
    finally:
        programs.table._fds = fds
    programs.send(packet(1), repeat=2)
    later = time.monotonic_ns() + 10 * CLOCK_SLACK_NS
    rows = np.concatenate([programs.datapath.evict(later), programs.datapath.evict(later)])
    assert sorted(rows["packets"].tolist()) == [2, 7]
    assert programs.table.stale == stale
