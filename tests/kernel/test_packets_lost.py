"""Packets that do not fit into the rings: each is counted, by filter and by interface; none comes in part."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np
import pytest

from lab import frames as f
from lab.prog_run import on_cpu
from lab.traffic import cpus
from lab.wire import GSO_TCPV6, Sender, virtio, wait_for
from netobs.kernel import libbpf
from netobs.pcap.filters import compile_filter
from netobs.pcap.selection import Selection
from netobs.pcap.tap.layout import LEAST_RING_BYTES
from netobs.pcap.tap.programs import PacketCount
from tests.kernel.packets import Pair, exchange, now_ns, read_all, seen, take, tapped

pytestmark = pytest.mark.kernel

SMALL = LEAST_RING_BYTES
ONE, UDP = compile_filter(["udp port 1"]), compile_filter(["udp"])
TCP = compile_filter(["tcp"])


@pytest.fixture
def sender(pair: Pair) -> Iterator[Sender]:
    with Sender(pair[0]) as opened:
        yield opened


def udp(dport: int, size: int) -> bytes:
    return f.ethernet(f.IPV4, f.ipv4(f.UDP, f.udp(bytes(size), dport=dport)))


def super_packet(size: int) -> bytes:
    packet = f.ipv6(f.TCP, f.tcp(f.ACK, bytes(size - 74)), length=size - 54 & 0xFFFF)
    return virtio(f.ethernet(f.IPV6, packet), linear=74, gso=GSO_TCPV6, size=8900, checksum=(54, 16))


@pytest.mark.parametrize("size", [20, 700, 8000])
def test_selected_is_read_and_lost(pair: Pair, sender: Sender, size: int) -> None:
    sent = Counter({1: 0, 2: 0})
    with tapped(*pair, filters=(ONE, UDP, TCP), size=SMALL) as tap:
        for cpu in cpus():
            with on_cpu(cpu):
                for number in range(900):
                    dport = 1 if number % 3 else 2
                    sender.send(udp(dport, size))
                    sent[dport] += 1
        total = 2 * sum(sent.values())
        wait_for(lambda: tap.count().copied + tap.count().lost == total, "all packets")
        assert tap.count().lost > total // 10
        metas = [batch.meta for batch in read_all(tap)]
        assert sum(map(len, metas)) == tap.count().copied
        for bit, selected in ((0, sent[1]), (1, sent[1] + sent[2]), (2, 0)):
            for link in pair:
                read = sum(int(((m["filters"] >> bit & 1) & (m["ifindex"] == link.ifindex)).sum()) for m in metas)
                assert read + tap.losses(bit).get(link.ifindex, 0) == selected
        assert sum(tap.losses(1).values()) == tap.count().lost
        # There is room again.
        before, lost = tap.losses(1), tap.count().lost
        for cpu in cpus():
            with on_cpu(cpu):
                assert [one.octets for one in exchange(tap, lambda: sender.send(udp(1, size)), 2)] == [udp(1, size)] * 2
        assert (tap.losses(1), tap.count().lost) == (before, lost)


def test_losses_are_those_since_the_selection(pair: Pair, sender: Sender) -> None:
    with tapped(*pair, filters=(UDP,), size=SMALL) as tap, on_cpu(cpus()[0]):
        sender.send(*[udp(1, 8000)] * 50)
        wait_for(lambda: tap.count().copied + tap.count().lost == 100, "all packets")
        lost = tap.losses(0)
        assert sum(lost.values()) == tap.count().lost > 0
        late = tap.select(Selection(ONE), now_ns())
        assert (tap.losses(late), tap.losses(0)) == ({}, lost)
        tap.release(0, now_ns())
        sender.send(*[udp(1, 8000)] * 50)
        wait_for(lambda: tap.count().copied + tap.count().lost == 200, "all packets")
        assert sum(tap.losses(late).values()) == tap.count().lost - sum(lost.values())


def test_a_short_packet_may_still_fit_behind_a_long_one_that_did_not(pair: Pair, sender: Sender) -> None:
    with tapped(pair[0], filters=(UDP, TCP), direction="egress", size=2 * SMALL) as tap:
        with on_cpu(cpus()[0]), Sender(pair[0], offload=True) as offload:
            assert len(exchange(tap, lambda: offload.send(super_packet(69_000)), 1)) == 1
            sender.send(*[udp(1, 8000)] * 20)
            offload.send(super_packet(69_000))
            sender.send(udp(2, 100))
            packets = [one for batch in take(tap, 23) for one in seen(batch)]
        assert [one.length for one in packets] == [8042] * 20 + [142]
        assert (tap.losses(0), tap.losses(1)) == ({}, {pair[0].ifindex: 1})
        assert tap.count() == PacketCount(copied=22, lost=1, own=0)


def test_what_the_smallest_ring_holds(pair: Pair) -> None:
    """The longest packet of a host without BIG TCP: 64 KiB of IP, two tags, Ethernet."""
    longest = 65_536 + 8 + 14
    with tapped(pair[0], filters=(TCP,), direction="egress", size=1) as tap, Sender(pair[0], offload=True) as offload:
        assert [one.length for one in exchange(tap, lambda: offload.send(super_packet(longest)), 1)] == [longest]


def test_big_packet_that_the_smallest_ring_does_not_hold(pair: Pair) -> None:
    with tapped(pair[0], filters=(TCP,), direction="egress", size=1) as tap, Sender(pair[0], offload=True) as offload:
        assert exchange(tap, lambda: offload.send(super_packet(131_072)), 1) == []
        assert tap.losses(0) == {pair[0].ifindex: 1}


def test_a_cpu_without_a_ring_loses_its_packets(pair: Pair, sender: Sender) -> None:
    """As one that came online after the rings were made."""
    with tapped(*pair, filters=(UDP,)) as tap:
        for cpu in cpus():
            libbpf.delete_u32(tap._programs.map_fd("packet_rings"), cpu)
        assert exchange(tap, lambda: sender.send(udp(1, 60)), 2) == []
        assert (tap.count().lost, tap.losses(0)) == (2, {link.ifindex: 1 for link in pair})


def test_reading_in_small_steps_keeps_the_order(pair: Pair, sender: Sender) -> None:
    """Packets of two CPUs: what one of them has left over holds back what is newer of the other."""
    with tapped(*pair, filters=(UDP,)) as tap:
        for number in range(40):
            with on_cpu(cpus()[number % len(cpus())]):
                sender.send(*[udp(number + 1, 20 + 40 * number)] * 50)
        wait_for(lambda: tap.count().copied == 4000, "all packets")
        batches = [tap.read(50_000, now_ns())]
        while tap.backlog_bytes:
            batches.append(tap.read(50_000, now_ns()))
    times = np.concatenate([batch.meta["time_ns"] for batch in batches]).astype(np.int64)
    assert len(batches) > 5
    assert len(times) == 4000
    assert (np.diff(times) >= 0).all()
