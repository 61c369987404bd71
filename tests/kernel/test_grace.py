"""Grace periods: after ``wait``, no program that began before is still running. Both ways of waiting."""

from __future__ import annotations

import logging
import mmap
import os
import resource
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Callable

import numpy as np
import numpy.typing as npt
import pytest

from lab.prog_run import Hammer, Programs, Run, exists, kernel_id, on_cpu, wait_until_gone
from netobs.base.errors import CaptureError
from netobs.kernel.grace import GracePeriod
from netobs.kernel.object import BpfObject
from tests.kernel.foreign import compile_bpf
from tests.kernel.numbered import packet
from tests.kernel.slots import Slots

CPUS = sorted(os.sched_getaffinity(0))
pytestmark = [
    pytest.mark.kernel(tools=("clang",)),
    pytest.mark.skipif(len(CPUS) < 2, reason="two CPUs are needed, one to run programs on and one to wait"),
]

SHARED = np.dtype([("half", "<u8"), ("counted", "<u8", (2,)), ("runs", "<u8")])  # struct shared of slow.bpf.c
TURNS = 100
NO_SYSCALL = 100_000  # the kernel answers ENOSYS

Shared = npt.NDArray[np.void]


@pytest.fixture(params=[True, False], ids=["membarrier", "map of maps"])
def grace(request: pytest.FixtureRequest) -> Iterator[GracePeriod]:
    period = GracePeriod(membarrier=request.param)
    yield period
    assert (period._outer >= 0) == (not request.param)  # the way that was asked for is the one that was gone
    period.close()


@pytest.fixture(scope="module")
def slow_object(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_bpf(Path(__file__).with_name("slow.bpf.c"), tmp_path_factory.mktemp("slow"))


@pytest.fixture
def slow(slow_object: Path) -> Iterator[tuple[Hammer, Shared]]:
    """A slow program that runs all the time on the last CPU, and the words that it writes."""
    with BpfObject(slow_object) as obj:
        obj.load()
        memory = mmap.mmap(obj.map_fd("shared"), mmap.PAGESIZE)
        run, frame = Run(obj.program_fd("slow")), packet()
        with on_cpu(CPUS[0]), Hammer(CPUS[-1], lambda: run(frame)) as hammer:
            hammer.go_on(1)
            yield hammer, np.frombuffer(memory, SHARED, count=1)[0]


def late_writes(slow: tuple[Hammer, Shared], wait: Callable[[], None]) -> int:
    """Turns the halves; how often the half at rest changed after ``wait``."""
    hammer, shared = slow
    late = 0
    for _ in range(TURNS):
        quiet = int(shared["half"])
        shared["half"] = 1 - quiet
        wait()
        counted = int(shared["counted"][quiet])
        hammer.go_on(2)
        late += int(shared["counted"][quiet]) != counted
    assert int(shared["counted"].sum()) >= 2 * TURNS
    return late


def test_no_program_is_late(slow: tuple[Hammer, Shared], grace: GracePeriod) -> None:
    assert late_writes(slow, grace.wait) == 0


def test_without_waiting_programs_are_late(slow: tuple[Hammer, Shared]) -> None:
    """That the test above would notice."""
    assert late_writes(slow, lambda: None) > TURNS // 4


def test_quiet_half_of_the_flow_table_is_at_rest(grace: GracePeriod) -> None:
    with Programs(max_flows=64, precise_time=True) as programs:
        run, frame = programs.run(), packet()
        halves = programs.datapath.halves
        halves._grace = grace
        with on_cpu(CPUS[0]), Hammer(CPUS[-1], lambda: run(frame, 50)) as hammer, Slots(programs) as slots:
            hammer.go_on(2)  # the half that is turned away has something
            for _ in range(TURNS):
                quiet = halves.flip(time.monotonic_ns())
                halves.settle()
                first = slots[:, quiet].copy()
                hammer.go_on(3)
                assert (first == slots[:, quiet]).all()
                assert first["counters"].any()
        seen = programs.ledger().seen.packets
        halves._grace = programs.datapath.grace
        assert int(programs.evict()["packets"].sum()) + int(programs.evict()["packets"].sum()) == seen


@pytest.mark.parametrize("way", ["membarrier", "map of maps"])
def test_packets_are_counted_once_through_evictions(way: str) -> None:
    with Programs(max_flows=64) as programs:
        run, frame = programs.run(), packet()
        grace = GracePeriod(membarrier=way == "membarrier")
        programs.datapath.halves._grace = grace
        evicted = []
        with on_cpu(CPUS[0]), Hammer(CPUS[-1], lambda: run(frame, 50)) as hammer:
            for _ in range(TURNS):
                evicted.append(programs.evict())
                hammer.go_on(1)
        evicted += [programs.evict(), programs.evict()]
        grace.close()
        packets = [int(rows["packets"].sum()) for rows in evicted]
        assert sum(packets) == programs.ledger().seen.packets == 50 * hammer.calls
        assert sum(count > 0 for count in packets) > TURNS // 2


def test_refused_system_call_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    grace = GracePeriod()
    grace._number = NO_SYSCALL
    for _ in range(3):
        grace.wait()
    grace.close()
    messages = [record.getMessage() for record in caplog.records if record.name == "netobs.capture"]
    assert messages == [
        "membarrier cannot be used (Function not implemented): waiting for programs by updating a map of maps"
    ]


def test_close_leaves_no_maps() -> None:
    grace = GracePeriod(membarrier=False)
    for _ in range(2):  # it can be used again
        grace.wait()
        maps = [("map", kernel_id(fd)) for fd in (grace._inner, grace._outer)]
        assert all(exists(*one) for one in maps)
        assert _map_fds() >= {grace._inner, grace._outer}
        before = _map_fds()
        grace.close()
        grace.close()
        assert len(before - _map_fds()) == 2
        wait_until_gone(*maps)


def _map_fds() -> set[int]:
    """The file descriptors of this process that are BPF maps."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:  # the folder itself
            continue
        if target == "anon_inode:bpf-map":
            found.add(int(name))
    return found


def test_no_way_at_all() -> None:
    """Here: no file descriptor is left for the maps."""
    grace = GracePeriod(membarrier=False)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    os.close(lowest)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
        with pytest.raises(CaptureError) as error:
            grace.wait()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert str(error.value) == (
        "no way to wait until the programs let go of the flow table: map netobs_inner: Too many open files"
    )
    grace.wait()
    grace.close()
