"""Selections that come and go, a thousand times, leave nothing behind."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import numpy as np
import pytest

from lab import frames as f
from lab.namespaces import Lab
from lab.prog_run import get, wait_until_gone
from lab.wire import Sender
from netobs.kernel import libbpf
from netobs.pcap.filters import compile_filter
from netobs.pcap.selection import Selection
from netobs.pcap.tap.layout import FILTER_SLOTS
from netobs.pcap.tap.tap import Tap
from tests.kernel.packets import Pair, choose, held_objects, nothing_is_left, release, tap_on

pytestmark = pytest.mark.kernel(tools=("tc",))

FRAME = f.ethernet(f.IPV4, f.ipv4(f.UDP, f.udp()))
ALL = Selection(compile_filter(["udp or tcp"]))


def mapped() -> int:
    return sum("bpf-map" in line for line in Path("/proc/self/maps").read_text(encoding="utf-8").splitlines())


def slots(tap: Tap) -> set[int]:
    """The kernel's numbers of the filter programs that are in force."""
    values = [get(tap._programs.map_fd("packet_programs"), np.uint32(slot), 4) for slot in FILTER_SLOTS]
    return {int.from_bytes(value, "little") for value in values if value is not None}


@pytest.mark.parametrize(("method", "rounds"), [("tc", 100), ("tcx", 50)])
def test_many_selections_leave_nothing(lab: Lab, pair: Pair, method: str, rounds: int) -> None:
    """Half of them the only one, so that all is made and undone; half beside another one."""
    selections = [Selection(compile_filter([f"udp,{number + 1}"])) for number in range(7)]
    programs: set[int] = set()
    gc.collect()  # descriptors of the tests before this one
    with tap_on(pair[1].ns, "target", method=method) as tap, Sender(pair[0]) as sender:
        release(tap, choose(tap, ALL))
        before = len(os.listdir("/proc/self/fd")), held_objects(), mapped()
        for number in range(rounds):
            bit = choose(tap, selections[number % 7])
            programs |= slots(tap)
            sender.send(FRAME)
            release(tap, bit)
        assert (len(os.listdir("/proc/self/fd")), held_objects(), mapped()) == before
        stays = choose(tap, ALL)
        between = len(os.listdir("/proc/self/fd")), held_objects(), mapped()
        rings = between[1]["map_id"] - before[1]["map_id"]
        for number in range(rounds):
            bit = choose(tap, selections[number % 7])
            programs |= slots(tap)
            release(tap, bit)
        assert (len(os.listdir("/proc/self/fd")), held_objects(), mapped()) == between
        release(tap, stays)
        assert (len(os.listdir("/proc/self/fd")), held_objects(), mapped()) == before
        assert nothing_is_left(lab, pair[1], method)
        assert len(programs) > 4 * rounds
    programs |= before[1]["prog_id"] - held_objects()["prog_id"]
    maps = before[1]["map_id"] - held_objects()["map_id"]
    assert len(maps) >= 7
    assert len(rings) == libbpf.online_cpus()
    maps |= rings
    wait_until_gone(*(("prog", number) for number in programs), *(("map", number) for number in maps))
