"""Programs that move to another place on their hooks under traffic: each packet is counted once, whoever is killed."""

from __future__ import annotations

import functools
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.killing import killed_at, lines_of
from lab.namespaces import Lab, in_namespace
from lab.prog_run import Programs
from netobs.datapath.turns import Turns
from netobs.kernel import attach, netlink
from netobs.kernel.attach import FLOWS_PLACE, LAST_PRIORITIES, TC_HANDLE
from netobs.kernel.interfaces import ARPHRD_ETHERNET, Interface
from netobs.kernel.moving import TURN_FIRST, TURN_SECOND
from netobs.kernel.pins import Pins
from tests.kernel.foreign import tcx_programs
from tests.kernel.test_adoption import Life

pytestmark = pytest.mark.kernel

Way = dict[str, Any]
LINK: Way = {"attach": "tcx", "anchor": "first"}
LAST_LINK: Way = {"attach": "tcx", "anchor": "last"}
FILTER: Way = {"attach": "tc", "anchor": "first"}
LAST_FILTER: Way = {"attach": "tc", "anchor": "last"}
MOVES = [FILTER, LAST_FILTER, FILTER, LAST_LINK, LINK, LAST_LINK, LAST_FILTER]
"""Forwards and backwards: among links, among filters, and between the two."""


class PinKeeper(Pins):
    """As ``DictKeeper``; processes that are killed find the same things as their parents."""

    def __init__(self, folder: Path, memory: Path) -> None:
        super().__init__(folder, memory)
        self._folders = folder, memory

    def succeed(self) -> PinKeeper:
        self.close()
        return PinKeeper(*self._folders)

    @property
    def kept(self) -> frozenset[str]:
        return self.names()


@pytest.fixture
def life(lab: Lab) -> Iterator[Life]:
    made = Life(lab, "tcx")
    with in_namespace(made.ns), made.keeper:
        yield made


def on_hook(life: Life) -> tuple[int, list[bool]]:
    """How many links of ours are on the ingress hook, and which filters: whether each is behind others."""
    filters = netlink.filters(life.near.ifindex, netlink.TC_H_CLSACT["ingress"])
    ours = [priority in LAST_PRIORITIES for handle, priority in filters if handle == TC_HANDLE]
    return len(tcx_programs(life.near, "ingress")), ours


def expected(way: Way) -> tuple[int, list[bool]]:
    return (1, []) if way["attach"] == "tcx" else (0, [way["anchor"] == "last"])


def move(programs: Programs, way: Way) -> None:
    programs.capture.points.move_to(way["attach"], way["anchor"] == "last")
    programs.capture.points.work()


def test_to_other_places_while_it_runs(life: Life) -> None:
    with life.process(keep=False, **LINK) as programs, life.traffic() as hammer:
        for way in MOVES:
            move(programs, way)
            assert on_hook(life) == expected(way)
            hammer.go_on(1)
    life.check()


def test_to_other_places_over_a_restart(life: Life) -> None:
    with life.process(**LINK):
        pass
    with life.traffic() as hammer:
        for way in (FILTER, LAST_LINK, LINK, {**LAST_FILTER, "max_flows": 4096}):
            with life.process(**way):
                assert on_hook(life) == expected(way)
                hammer.go_on(1)
    with life.process(keep=False, **LINK, max_flows=4096):
        assert on_hook(life) == expected(LINK)
    life.check()


def turns_of(programs: Programs) -> Turns:
    turns = programs.capture.points.placing.turns
    assert isinstance(turns, Turns)
    return turns


def test_each_packet_is_counted_once_whenever_the_turn_changes(life: Life) -> None:
    near = Interface(life.near.ifindex, life.near.name, ARPHRD_ETHERNET[0])
    with life.process(keep=False, **LINK) as programs:
        turns = turns_of(programs)
        (link,) = [each for each in programs.capture.points._attachments[near.index] if each.direction == "ingress"]
        turns.begin(TURN_FIRST)
        link.swap(turns.program_fd("netobs_ingress", TURN_FIRST))
        second = turns.program_fd("netobs_ingress", TURN_SECOND)
        filter_ = attach.attach(near, "ingress", second, "tc", FLOWS_PLACE._replace(beside=True))
        with life.traffic():
            for number in range(100):
                turns.pass_to(TURN_FIRST if number % 2 else TURN_SECOND)
        filter_.detach()
        link.swap(programs.program_fd("netobs_ingress"))
    life.check()


@pytest.fixture
def pinned(life: Life, bpf_fs: Path, tmp_path: Path) -> Life:
    life.keeper.close()
    life.keeper = PinKeeper(bpf_fs / "netobs", tmp_path / "memory")  # type: ignore[assignment]
    return life


def test_killed_at_any_line_of_a_move(pinned: Life) -> None:
    """The next process finds both, or one, and it may be the one that does not count any more."""
    rng, kills = random.Random(15), 0
    with pinned.process(**LINK) as programs:
        lines = []
        for way in (FILTER, LINK):
            turns_of(programs).load()
            lines.append(lines_of(functools.partial(move, programs, way)))
    with pinned.traffic() as hammer:
        for number in range(6):
            before, after = [LINK, FILTER][number % 2], [FILTER, LINK][number % 2]
            with pinned.process(**before) as programs:
                turns_of(programs).load()
                line = rng.randrange(lines[number % 2])
                kills += killed_at(line + 1, functools.partial(move, programs, after))
                hammer.go_on(1)
            way = after if number % 3 else before
            with pinned.process(**way):
                assert on_hook(pinned) == expected(way)
    with pinned.process(keep=False, **LAST_LINK):
        assert on_hook(pinned) == expected(LAST_LINK)
    assert kills >= 5
    pinned.check()
