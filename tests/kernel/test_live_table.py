"""The flow table as a process sees it that only looks: it misses nothing, and counts nothing twice."""

from __future__ import annotations

import json
import mmap
import os
import time
from collections import Counter
from typing import Any

import numpy as np
import pytest

from lab.prog_run import Hammer, Programs, on_cpu
from netobs.datapath.view import STATE_MAP, TableShape, TableView
from netobs.flow.records import Records
from netobs.live.flows import Flows, rows_of
from tests.kernel.numbered import fill, packet

pytestmark = pytest.mark.kernel

CPUS = sorted(os.sched_getaffinity(0))
TABLES = ("percpu_array", "percpu_hash")
FLOWS = 40
two_cpus = pytest.mark.skipif(CPUS[-1] == 0, reason="a CPU besides the first is needed")


def view_of(programs: Programs) -> TableView:
    maps = {name: os.dup(programs.map_fd(name)) for name in (*programs.table.MAPS, STATE_MAP)}
    return TableView(programs.datapath.shape(), maps, programs.datapath.state.active_half)


def sums(records: Records) -> Counter[bytes]:
    """Packets of each flow."""
    counts: Counter[bytes] = Counter()
    for row in rows_of(np.ascontiguousarray(records)):
        counts[row.tobytes()[:48]] += int(row["packets"])
    return counts


def totals(flows: Flows) -> Counter[bytes]:
    return Counter({key.tobytes(): packets for key, packets in zip(flows.keys, flows.totals()[0].tolist())})


@pytest.mark.parametrize(
    ("table", "slots_for"),
    [("percpu_array", 0), pytest.param("percpu_array", 1, marks=two_cpus, id="overflow"), ("percpu_hash", 0)],
)
def test_every_look_has_all_packets_so_far_while_flows_are_taken_out(table: str, slots_for: int) -> None:
    """Evictions flip the halves between and during the looks; their rows come a little later."""
    with Programs(max_flows=4096, flow_table=table, slots_for=slots_for) as programs:
        view, flows, evicted = view_of(programs), Flows(), Counter[bytes]()
        frames, run = [packet(number) for number in range(FLOWS)], programs.run()
        sent, looks = [0], 0

        def work() -> None:
            run(frames[sent[0] % FLOWS])
            sent[0] += 1

        with Hammer(CPUS[-1], work) as hammer:
            for number in range(30):
                hammer.go_on(5)
                if number % 3 == 0:
                    rows = programs.evict()
                    assert view.read(time.monotonic_ns()) is None  # its rows are not here yet
                    flows.add(rows_of(rows))
                    evicted += sums(rows)
                    view.follow(programs.datapath.state.active_half)
                before = sent[0]
                found = view.read(time.monotonic_ns())
                after = sent[0]
                assert found is not None
                flows.set_live(rows_of(found))
                assert before <= sum(totals(flows).values()) <= after + 1  # one may be counted and not noted yet
                looks += 1
        for _ in range(2):
            rows = programs.evict()
            flows.add(rows_of(rows))
            evicted += sums(rows)
        flows.set_live(rows_of(rows[:0]))
        assert totals(flows) == evicted
        assert sum(evicted.values()) == sent[0]
        assert looks == 30
        view.close()


def test_a_slot_that_was_emptied_has_no_counts() -> None:
    """Who reads one while a program fills it again would take the former flow's counts for the new one's."""
    with Programs(max_flows=1024) as programs:
        fill(programs, 50)
        programs.evict()
        size = 2 * programs.table.slot_cpus * programs.table.slots * 64
        with mmap.mmap(programs.map_fd("flow_slots"), size, mmap.MAP_SHARED, mmap.PROT_READ) as memory:
            words = np.frombuffer(memory, "<u8").reshape(-1, 8).copy()
        assert np.count_nonzero(words[:, 0] | words[:, 1]) >= 50  # addresses stay
        assert not words[:, 6].any()


@pytest.mark.parametrize("table", TABLES)
def test_the_memory_cannot_be_written(table: str) -> None:
    with Programs(max_flows=1024, flow_table=table) as programs:
        view = view_of(programs)
        with pytest.raises(ValueError, match="read-only"):
            view._state._state["active_half"][0] = 1
        if table == "percpu_array":
            with pytest.raises(ValueError, match="read-only"):
                view._table._region("flow_slots", 0)["used"][0] = 1  # type: ignore[attr-defined]
        view.close()


def test_a_look_changes_nothing() -> None:
    with Programs(max_flows=1024) as programs:
        view = view_of(programs)
        with on_cpu(CPUS[-1]), programs.accounting() as observed:
            fill(programs, 500)
            for _ in range(3):
                assert view.read(time.monotonic_ns()) is not None
        assert len(observed[0].flows) == 500
        view.close()


def test_without_a_table_there_is_nothing_to_look_at() -> None:
    with Programs(flow_table="ringbuf") as programs:
        view = view_of(programs)
        programs.send(packet())
        found = view.read(time.monotonic_ns())
        assert found is not None
        assert len(found) == 0
        assert programs.evict()["packets"].tolist() == [1]
        view.close()


def test_the_shape_goes_through_json() -> None:
    with Programs(max_flows=5000, extra_groups=("ip",)) as programs:
        shape: list[Any] = json.loads(json.dumps(programs.datapath.shape()))
        assert TableShape(*shape) == programs.datapath.shape()
        assert TableShape(*shape).object == "netobs_extra.bpf.o"
        view = view_of(programs)
        fill(programs, 10)
        found = view.read(time.monotonic_ns())
        assert found is not None
        assert sorted(rows_of(found)["packets"].tolist()) == [1] * 10
        view.close()
