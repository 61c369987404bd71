"""A tap beside flow metering, attached only while somebody wants packets, leaving nothing behind."""

from __future__ import annotations

import select
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import frames as f
from lab.namespaces import Lab
from lab.prog_run import Programs, on_cpu
from lab.traffic import cpus
from lab.wire import Sender, measured, wait_for
from lab.wire import exchange as exchange_flows
from netobs.base.errors import CaptureError
from netobs.kernel.attach import PACKETS_TC_HANDLE, TC_HANDLE
from netobs.pcap.filters import compile_filter
from netobs.pcap.selection import Selection
from netobs.pcap.tap.filter_bits import MAX_SELECTIONS
from netobs.pcap.tap.tap import Tap
from tests.kernel.foreign import HANDLE, Foreign, compile_foreign, filters, handles, qdiscs, tcx_programs
from tests.kernel.packets import (
    MIB,
    Pair,
    choose,
    exchange,
    held_objects,
    nothing_is_left,
    now_ns,
    read_all,
    release,
    seen,
    take,
    tap_on,
    tapped,
)

pytestmark = pytest.mark.kernel(tools=("clang", "tc"))

FRAME = f.ethernet(f.IPV4, f.ipv4(f.UDP, f.udp()))
ALL = Selection(compile_filter(["udp or tcp"]))
ROOT = Path(__file__).parents[2]


@pytest.fixture
def pair(lab: Lab) -> Pair:
    """Both ends of a pair, in one namespace: what leaves one arrives at the other."""
    ns = lab.namespace()
    return lab.veth(ns, ns, names=("source", "target"))


@pytest.fixture
def sender(pair: Pair) -> Iterator[Sender]:
    with Sender(pair[0]) as opened:
        yield opened


@pytest.fixture(params=["tcx", "tc"])
def method(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def both_see(tap: Tap, programs: Programs, sender: Sender, packets: int = 5) -> None:
    """Packets and flows, each of them exactly, at the receiving end."""
    before = tap.count().copied
    flows = exchange_flows(programs, sender, [FRAME] * packets)
    assert flows.records["packets"].tolist() == [packets]
    taken = [one.octets for batch in take(tap, before + packets) for one in seen(batch)]
    assert taken == [FRAME] * packets


@pytest.mark.parametrize("packets_first", [False, True])
@pytest.mark.parametrize("flows_leave_first", [False, True])
def test_beside_flows_in_any_order(
    lab: Lab, pair: Pair, sender: Sender, method: str, packets_first: bool, flows_leave_first: bool
) -> None:
    target = pair[1]
    assert nothing_is_left(lab, target, method)
    with tap_on(target.ns, "target", method=method) as tap, measured(target, attach=method) as programs:
        if packets_first:
            programs.capture.points.detach()
        bit = choose(tap, ALL)
        programs.capture.points.attach()
        both_see(tap, programs, sender)
        if method == "tc":
            assert sorted(handles(lab, target, "ingress")) == sorted([TC_HANDLE, PACKETS_TC_HANDLE])
            assert sorted(handles(lab, target, "egress")) == sorted([TC_HANDLE, PACKETS_TC_HANDLE])
        if flows_leave_first:
            programs.capture.points.detach()
            assert [one.octets for one in exchange(tap, lambda: sender.send(FRAME), 1)] == [FRAME]
            release(tap, bit)
        else:
            release(tap, bit)
            assert exchange_flows(programs, sender, [FRAME]).records["packets"].tolist() == [1]
            programs.capture.points.detach()
        assert nothing_is_left(lab, target, method)


def test_flows_are_exact_while_taps_come_and_go(pair: Pair, sender: Sender, method: str) -> None:
    with tap_on(pair[1].ns, "target", method=method) as tap, measured(pair[1], attach=method) as programs:
        with programs.accounting() as observed:
            for _ in range(10):
                bit = choose(tap, ALL)
                sender.send(*[FRAME] * 100)
                release(tap, bit)
                sender.send(*[FRAME] * 100)
            wait_for(lambda: programs.ledger().seen.packets >= 2000, "all packets")
        assert observed[0].flows["packets"].tolist() == [2000]
        assert not observed[0].reasons


@pytest.mark.parametrize("what", ["qdisc", "filters"])
def test_what_somebody_removed_is_attached_again_for_both(lab: Lab, pair: Pair, sender: Sender, what: str) -> None:
    """The qdisc that flows have made again is ours, for packets too."""
    target = pair[1]
    with tap_on(target.ns, "target", method="tc") as tap, measured(target, attach="tc") as programs:
        choose(tap, ALL)
        if what == "qdisc":
            lab.run(target.ns, ["tc", "qdisc", "del", "dev", "target", "clsact"])
        else:
            lab.run(target.ns, ["tc", "filter", "del", "dev", "target", "ingress"])
        programs.capture.points.restore()
        assert not programs.capture.points.work()
        tap.restore()
        assert not tap.attach_some()
        both_see(tap, programs, sender)
        tap.close()
        programs.capture.points.detach()
        assert filters(lab, target, "ingress") == filters(lab, target, "egress") == []
        assert ("clsact" in qdiscs(lab, target)) == (what == "filters")  # may be theirs


def test_others_on_the_hook_see_each_packet_and_stay(
    lab: Lab, pair: Pair, sender: Sender, method: str, tmp_path: Path
) -> None:
    target = pair[1]
    with Foreign(compile_foreign(tmp_path)) as foreign:
        if method == "tcx":
            foreign.attach_tcx(target, "ingress")
        else:
            foreign.attach_tc(target, "ingress", 1)
        with tapped(target, attach=method) as tap:
            assert len(exchange(tap, lambda: sender.send(*[FRAME] * 5), 5)) == 5
            wait_for(lambda: foreign.counted == 5, "5 packets at the foreign program")
        if method == "tcx":
            assert tcx_programs(target, "ingress") == [foreign.program_id()]
        else:
            assert handles(lab, target, "ingress") == [HANDLE]
        sender.send(FRAME)
        wait_for(lambda: foreign.counted == 6, "a packet more at the foreign program")


PREDECESSOR = """
import os, signal, sys
from tests.kernel.packets import tapped
from lab.namespaces import Link
with tapped(Link(sys.argv[1], sys.argv[2], 0, ""), attach=sys.argv[3]):
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_predecessor(lab: Lab, pair: Pair, sender: Sender, method: str) -> None:
    """What it left on the hook of clsact selects nothing, and is replaced."""
    target = pair[1]
    argv = [sys.executable, "-c", PREDECESSOR, target.ns, target.name, method]
    assert subprocess.run(argv, cwd=ROOT, timeout=60, check=False).returncode == -signal.SIGKILL
    assert handles(lab, target, "ingress") == ([PACKETS_TC_HANDLE] if method == "tc" else [])
    with tapped(target, attach=method) as tap:
        assert len(exchange(tap, lambda: sender.send(FRAME), 1)) == 1
        assert handles(lab, target, "ingress") == ([PACKETS_TC_HANDLE] if method == "tc" else [])
    assert filters(lab, target, "ingress") == filters(lab, target, "egress") == []


def test_nothing_is_attached_while_nothing_is_selected(lab: Lab, pair: Pair, sender: Sender, method: str) -> None:
    udp, tcp = Selection(compile_filter(["udp"])), Selection(compile_filter(["tcp"]))
    with tap_on(pair[1].ns, "target", method=method) as tap:
        assert nothing_is_left(lab, pair[1], method)
        assert (tap.is_active, tap.interfaces()) == (False, [])
        assert [choose(tap, one) for one in (udp, tcp)] == [0, 1]
        assert [interface.name for interface in tap.interfaces()] == ["target"]
        for bit, left in ((1, True), (0, False)):
            release(tap, bit)
            assert tap.is_active == left
            assert nothing_is_left(lab, pair[1], method) != left
        sender.send(FRAME)
        assert (len(tap.read(MIB, now_ns())), tap.count().copied) == (0, 0)


def test_selections_come_and_go_while_packets_pass(pair: Pair, sender: Sender) -> None:
    """Without attaching anew: who stays misses nothing, and each is told of its own."""
    ports = [Selection(compile_filter([f"udp port {port}"])) for port in (1, 2)]

    def send() -> None:
        sender.send(*(f.ethernet(f.IPV4, f.ipv4(f.UDP, f.udp(dport=port))) for port in (1, 2, 3)))

    with tap_on(pair[1].ns, "target") as tap:
        first = choose(tap, ports[0])
        attached = held_objects()["link_id"]
        told: Counter[int] = Counter()
        for _ in range(20):
            second = choose(tap, ports[1])
            before = tap.count().copied
            send()
            for batch in take(tap, before + 2):
                told.update(batch.meta["filters"].tolist())
            release(tap, second)
            send()
        for batch in take(tap, 60):
            told.update(batch.meta["filters"].tolist())
        assert held_objects()["link_id"] == attached
        assert told == {1 << first: 40, 2: 20}


def test_a_selection_of_one_interface(pair: Pair, sender: Sender) -> None:
    with tap_on(pair[1].ns, "source", "target") as tap:
        bits = [choose(tap, ALL._replace(ifindex=link.ifindex)) for link in pair]
        packets = exchange(tap, lambda: sender.send(FRAME), 2)
        assert [one.ifindex for one in packets] == [pair[0].ifindex, pair[1].ifindex]
        assert bits == [0, 1]


def test_more_filters_than_there_are_bits(pair: Pair, sender: Sender) -> None:
    with tap_on(pair[1].ns, "target") as tap:
        for number in range(MAX_SELECTIONS):
            choose(tap, Selection(compile_filter([f"udp,{number + 1}"])))
        with pytest.raises(CaptureError, match="32 different filters are in use, which is the limit"):
            choose(tap, ALL)
        frame = f.ethernet(f.IPV4, f.ipv4(f.UDP, f.udp(sport=7, dport=MAX_SELECTIONS)))
        tap.read(MIB, now_ns())
        sender.send(frame)
        (batch,) = [one for one in take(tap, 1) if len(one)]
        assert batch.meta["filters"].tolist() == [1 << 6 | 1 << 31]


def test_filters_that_are_too_large_together(pair: Pair, sender: Sender) -> None:
    """Who connects chooses them, and nothing else is done while the kernel verifies them."""
    long = [" or ".join(f"vlan {number + first} and port 9" for number in range(34)) for first in (0, 50, 100)]
    with tap_on(pair[1].ns, "target") as tap:
        choose(tap, ALL)
        bit = choose(tap, Selection(compile_filter(long[:1])))
        said = "the long filters in use would have [0-9]+ instructions together, and at most 2048 are possible"
        for _ in range(40):  # none of them takes a bit for itself
            with pytest.raises(CaptureError, match=said):
                choose(tap, Selection(compile_filter(long[1:])))
        assert [one.octets for one in exchange(tap, lambda: sender.send(FRAME), 1)] == [FRAME]
        release(tap, bit)
        choose(tap, Selection(compile_filter(long[1:2])))


def test_wakes_when_a_ring_fills_up(pair: Pair, sender: Sender) -> None:
    with tap_on(pair[1].ns, "target", size=MIB) as tap, on_cpu(cpus()[0]):
        choose(tap, ALL)
        sender.send(FRAME)
        wait_for(lambda: tap.count().copied == 1, "a packet")
        assert not select.select([tap], [], [], 0)[0]  # not for each
        sender.send(*[f.ethernet(f.IPV4, f.ipv4(f.UDP, f.udp(bytes(1400))))] * 200)
        assert select.select([tap], [], [], 10)[0]
        wait_for(lambda: tap.count().copied == 201, "all packets")
        assert sum(map(len, read_all(tap))) == 201
        assert not select.select([tap], [], [], 0)[0]
        sender.send(*[f.ethernet(f.IPV4, f.ipv4(f.UDP, f.udp(bytes(1400))))] * 200)
        assert select.select([tap], [], [], 10)[0]


def test_many_interfaces_are_attached_slice_by_slice(lab: Lab) -> None:
    ns, count = lab.namespace(), 12  # each takes two grace periods, three slices or so in all
    for number in range(0, count, 2):
        lab.veth(ns, ns, names=(f"tap{number}", f"tap{number + 1}"))
    with tap_on(ns, "tap*", method="tcx") as tap:
        bit = tap.select(ALL, now_ns())
        assert 0 < len(tap.interfaces()) < count
        lab.run(ns, ["ip", "link", "delete", f"tap{count - 1}"])
        while tap.attach_some():
            pass
        assert sorted(one.index for one in tap.interfaces()) == sorted(one.index for one in tap.capturable())
        assert len(tap.interfaces()) == count - 2
        tap.release(bit, now_ns())
        assert 0 < len(tap.interfaces()) < count - 2
        assert tap.select(ALL, now_ns()) == bit  # before all are detached
        while tap.attach_some():
            pass
        assert len(tap.interfaces()) == count - 2
        tap.release(bit, now_ns())
        while tap.attach_some():
            pass
        assert tap.interfaces() == []


def test_interfaces_that_come_go_and_get_other_names(lab: Lab, method: str) -> None:
    ns, far = lab.namespace("near"), lab.namespace("far")
    with tap_on(ns, "tap*", method=method) as tap:

        def settle() -> list[str]:
            while select.select([tap.links], [], [], 0)[0]:
                tap.follow_links()
                assert not tap.attach_some()
            return sorted(interface.name for interface in tap.interfaces())

        lab.veth(ns, far, names=("tap0", "far0"))
        lab.run(ns, ["ip", "link", "delete", "tap0"])  # of no interest yet
        choose(tap, ALL)
        assert settle() == []
        _, other = lab.veth(ns, far, names=("tap1", "far1"))
        assert settle() == ["tap1"]
        index = tap.interfaces()[0].index
        with Sender(other) as sender:
            assert [one.ifindex for one in exchange(tap, lambda: sender.send(FRAME), 1)] == [index]
            sender.send(FRAME)
        wait_for(lambda: tap.count().copied == 2, "a packet more")
        lab.run(ns, ["ip", "link", "set", "tap1", "down"])
        lab.run(ns, ["ip", "link", "set", "tap1", "name", "other1"])
        assert settle() == []
        (packet,) = (one for batch in read_all(tap) for one in seen(batch))
        assert tap.known_interfaces()[packet.ifindex].name == "tap1"


def test_an_interface_that_went_before_its_packets_were_read(lab: Lab, method: str) -> None:
    ns, far = lab.namespace("near"), lab.namespace("far")
    with tap_on(ns, "tap*", method=method) as tap:
        choose(tap, ALL)
        _, other = lab.veth(ns, far, names=("tap1", "far1"))
        tap.follow_links()
        assert not tap.attach_some()
        with Sender(other) as sender:
            sender.send(FRAME)
        wait_for(lambda: tap.count().copied == 1, "a packet")
        lab.run(ns, ["ip", "link", "delete", "tap1"])
        tap.follow_links()
        (packet,) = (one for batch in read_all(tap) for one in seen(batch))
        assert tap.interfaces() == []
        assert tap.known_interfaces()[packet.ifindex].name == "tap1"
