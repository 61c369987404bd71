"""The next process goes on where this one ended: each packet is counted once, whatever changes between them."""

from __future__ import annotations

import contextlib
import itertools
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from lab import frames as f
from lab.keeping import DictKeeper
from lab.namespaces import Lab, in_namespace
from lab.prog_run import Hammer, Programs, kernel_id, wait_until_gone
from lab.wire import Sender, wait_for
from netobs.datapath.ledger import LedgerReading
from netobs.kernel.kept_links import link_name
from tests.kernel.foreign import ours, qdiscs, tcx_programs
from tests.kernel.test_links import recreate

pytestmark = pytest.mark.kernel

FLOWS = 40
FRAMES = [f.ethernet(f.IPV4, f.ipv4(f.UDP, f.udp(sport=1000 + number))) for number in range(FLOWS)]
NOT_IP = f.ethernet(0x0806, bytes(28))
SMALL: dict[str, Any] = {"max_flows": 1024, "interfaces": ("tap*",)}


class Life:
    """One process after the other, on the interfaces of ``ns``, and what they have counted together."""

    def __init__(self, lab: Lab, attach: str = "auto") -> None:
        self.near, self.far = lab.veth(*[lab.namespace()] * 2, names=("tap1", "other1"))
        self.ns, self._attach = self.near.ns, attach
        self.keeper = DictKeeper()
        self.packets = self.sent = 0
        self.ledger: LedgerReading | None = None

    @contextlib.contextmanager
    def process(self, keep: bool = True, **config: Any) -> Iterator[Programs]:
        programs = Programs(keeper=self.keeper, **{**SMALL, "attach": self._attach, **config})
        try:
            assert programs.capture.points.attach() == 1
            self.take(programs)
            yield programs
            if not keep:
                wait_for(lambda: programs.ledger().seen.packets >= self.sent, "the last packets")
                self.take(programs)
                self.take(programs)
            self.ledger = programs.ledger()
        finally:
            programs.close(keep)
            self.keeper = self.keeper.succeed()

    def take(self, programs: Programs) -> None:
        for rows in programs.datapath.take_former(time.monotonic_ns()):
            self.packets += int(rows["packets"].sum())
        self.packets += int(programs.evict()["packets"].sum())

    @contextlib.contextmanager
    def traffic(self) -> Iterator[Hammer]:
        with Sender(self.far) as sender, Hammer(max(os.sched_getaffinity(0)), lambda: self._send(sender)) as hammer:
            hammer.go_on(1)
            yield hammer

    def _send(self, sender: Sender) -> None:
        sender.send(*FRAMES, NOT_IP)
        self.sent += FLOWS + 1
        os.sched_yield()

    def check(self) -> None:
        """Each packet was counted once."""
        assert self.ledger is not None
        assert self.ledger.seen.packets == self.sent == self.packets + self.ledger.not_in_flows.packets
        assert self.ledger.not_in_flows.packets == self.sent // (FLOWS + 1)
        assert self.keeper.kept == frozenset()


@pytest.fixture(params=["tcx", "tc"])
def life(request: pytest.FixtureRequest, lab: Lab) -> Iterator[Life]:
    made = Life(lab, request.param)
    with in_namespace(made.ns), made.keeper:
        yield made


KINDS: dict[str, list[dict[str, Any]]] = {
    "as it is": [{}],
    "other programs": [{"precise_time": True}, {"precise_time": False}],
    "another size": [{"max_flows": 4096}, {"max_flows": 1024}],
    "another table": [{"flow_table": "percpu_hash"}, {"flow_table": "ringbuf"}, {"flow_table": "percpu_array"}],
}
TIMES = {"as it is": 10, "other programs": 1, "another size": 1, "another table": 2}


@pytest.mark.parametrize("kind", KINDS)
def test_no_packet_is_missed_or_counted_twice(life: Life, kind: str) -> None:
    configs = itertools.cycle(KINDS[kind])
    with life.process():
        pass
    with life.traffic() as hammer:
        for _ in range(TIMES[kind]):
            with life.process(**next(configs)):
                hammer.go_on(2)
        hammer.go_on(1)
    with life.process(keep=False, **next(configs)):
        pass
    life.check()


def test_nothing_is_loaded_that_is_there(life: Life) -> None:
    with life.process() as programs:
        before = {name: kernel_id(programs.program_fd(name)) for name in ("netobs_ingress", "netobs_clock")}
        maps = {name: kernel_id(programs.map_fd(name)) for name in ("flow_slots", ".bss", "ring")}
    with life.process() as programs:
        assert {name: kernel_id(programs.program_fd(name)) for name in before} == before
        assert {name: kernel_id(programs.map_fd(name)) for name in maps} == maps
    with life.process(precise_time=True) as programs:
        assert kernel_id(programs.program_fd("netobs_ingress")) not in before.values()
        assert {name: kernel_id(programs.map_fd(name)) for name in maps} == maps
    with life.process(keep=False, max_flows=2048, precise_time=True) as programs:
        assert not {kernel_id(programs.map_fd(name)) for name in maps}.intersection(maps.values())
        wait_until_gone(*[("map", number) for number in maps.values()])
    wait_until_gone(*[("prog", number) for number in before.values()])


def test_a_hook_never_has_two_of_ours(lab: Lab, life: Life) -> None:
    for config in ({}, {"precise_time": True}, {"max_flows": 4096}, {}):
        with life.process(**config) as programs:
            if programs.capture.points.method == "tcx":
                expected = [kernel_id(programs.program_fd("netobs_ingress"))]
                assert tcx_programs(life.near, "ingress") == expected
            else:
                assert ours(lab, life.near) == 2
    with life.process(keep=False):
        pass
    assert tcx_programs(life.near, "ingress") == []
    assert ours(lab, life.near) == 0
    assert "clsact" not in qdiscs(lab, life.near)


def test_another_method(lab: Lab, life: Life) -> None:
    with life.process():
        pass
    other = "tc" if life._attach == "tcx" else "tcx"
    with life.process(attach=other) as programs:
        assert (len(tcx_programs(life.near, "ingress")), ours(lab, life.near)) == ((1, 0) if other == "tcx" else (0, 2))
        with Sender(life.far) as sender:
            before = programs.ledger().seen.packets
            sender.send(*FRAMES)
            wait_for(lambda: programs.ledger().seen.packets >= before + FLOWS, "the packets")
            assert programs.ledger().seen.packets == before + FLOWS
    with life.process(keep=False, attach=other):
        pass
    assert "clsact" not in qdiscs(lab, life.near)


def test_a_removed_interface_and_one_that_is_not_wanted_any_more_are_let_go(lab: Lab, life: Life) -> None:
    lab.veth(life.ns, life.ns, names=("tap2", "other2"))
    third, _ = lab.veth(life.ns, life.ns, names=("tap3", "other3"))
    config = {**SMALL, "attach": life._attach}
    programs = Programs(keeper=life.keeper, **config)
    assert programs.capture.points.attach() == 3
    if life._attach == "tcx":
        second = lab.link(life.ns, "tap2").ifindex
        assert {link_name(index, "ingress") for index in (second, third.ifindex)} < life.keeper.kept
    programs.close(keep=True)
    lab.run(life.ns, ["ip", "link", "delete", "tap2"])
    life.keeper = life.keeper.succeed()
    with Programs(keeper=life.keeper, **{**config, "interfaces": ("tap1",), "direction": "ingress"}) as programs:
        assert programs.capture.points.attach() == 1
        links = {link_name(life.near.ifindex, "ingress")} if life._attach == "tcx" else set()
        assert {name for name in life.keeper.kept if name.startswith("l-")} == links
        assert (tcx_programs(third, "ingress"), ours(lab, third)) == ([], 0)
        assert tcx_programs(life.near, "egress") == []
        assert ours(lab, life.near) == (life._attach == "tc")
        assert "clsact" not in qdiscs(lab, third)
    assert life.keeper.kept == frozenset()
    assert "clsact" not in qdiscs(lab, life.near)


def test_flows_of_an_index_that_is_used_again_meanwhile_keep_their_name(lab: Lab) -> None:
    """The other interface appears while no process is there to see it."""
    life = Life(lab)
    with in_namespace(life.ns), life.keeper:
        with life.process(), Sender(life.far) as sender:
            sender.send(*FRAMES)
        recreate(lab, life.ns, "tap1", "tap9", "other9")
        ended: list[tuple[int, bytes, int]] = []
        with contextlib.closing(Programs(keeper=life.keeper, **SMALL)) as programs:
            points = programs.capture.points

            def end(index: int) -> None:
                rows, table = programs.evict(), points.interface_names.table()
                ended.append(
                    (index, table.names[table.positions(rows["netns"], rows["ifindex"])][0], int(rows["packets"].sum()))
                )

            points.on_reuse = end
            points.attach()
            assert ended == [(life.near.ifindex, b"tap1", FLOWS)]
            assert [interface.name for interface in points.attached] == ["tap9"]


@pytest.mark.parametrize("kind", ["other programs", "another size", "another table"])
def test_a_running_process_changes_its_programs(life: Life, kind: str) -> None:
    """As at a reload."""
    configs = itertools.cycle(KINDS[kind])
    with life.process(keep=False) as programs, life.traffic() as hammer:
        for _ in range(TIMES[kind]):
            hammer.go_on(2)
            config = programs.capture.datapath._config
            programs.capture.replace(programs.capture.load_beside(replace(config, **next(configs))))
            life.take(programs)
    life.check()


def test_a_process_that_ends_during_the_change_leaves_both(life: Life) -> None:
    with life.process():
        pass
    with life.traffic() as hammer:
        for number in range(4):
            programs = Programs(
                keeper=life.keeper, **{**SMALL, "attach": life._attach, "max_flows": 1024 << number % 3}
            )
            if number % 2:  # the hooks have the new programs
                programs.capture.points.attach()
            hammer.go_on(3)
            programs.close(keep=True)
            life.keeper = life.keeper.succeed()
    with life.process(keep=False) as programs:
        assert programs.capture.points.attached
    life.check()


def test_what_is_of_another_start_of_the_kernel_is_dropped(life: Life, caplog: pytest.LogCaptureFixture) -> None:
    with life.process(), Sender(life.far) as sender:
        sender.send(*FRAMES)
    for name in life.keeper.names():
        fd = life.keeper.former(name)
        if name.startswith("manifest-") and fd is not None:
            content = os.pread(fd, 1 << 23, 0)
            os.pwrite(fd, content.replace(b'"boot":"', b'"boot":"0'[:-1] + b"0"), 0)
    with life.process(keep=False) as programs:
        assert programs.ledger().seen.packets == 0
    assert life.keeper.kept == frozenset()


def test_what_cannot_be_used_is_given_up(life: Life, caplog: pytest.LogCaptureFixture) -> None:
    ends = os.pipe()
    with life.process():
        (name,) = [each for each in life.keeper.kept if each.endswith("-ledgers")]
        life.keeper.keep(name, ends[0])
    with life.process(keep=False) as programs:
        assert "what the former process has left in the kernel is lost: it cannot be used" in caplog.text
        assert programs.ledger().seen.packets == 0
    assert life.keeper.kept == frozenset()
    for fd in ends:
        os.close(fd)


def test_without_a_keeper_nothing_is_kept(lab: Lab) -> None:
    near, _ = lab.veth(*[lab.namespace()] * 2, names=("tap1", "other1"))
    with in_namespace(near.ns), Programs(**SMALL) as programs:
        assert programs.capture.points.attach() == 1
        number = kernel_id(programs.program_fd("netobs_ingress"))
        programs.capture.close()
    wait_until_gone(("prog", number))
    assert tcx_programs(near, "ingress") == []
