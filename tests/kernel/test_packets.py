"""Selected packets, whole: what comes out of the rings is what a packet socket sees beside it."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from lab import frames as f
from lab.namespaces import Lab
from lab.prog_run import on_cpu
from lab.traffic import cpus
from lab.wire import GSO_TCPV4, GSO_TCPV6, Sender, Tun, virtio
from netobs.base import clock
from netobs.pcap.tap.layout import SNAPLEN
from netobs.pcap.tap.tap import Tap
from tests.kernel.packets import (
    MIB,
    TAG_OCTETS,
    PacketSocket,
    Pair,
    Seen,
    exchange,
    now_ns,
    seen,
    tagging,
    take,
    tapped,
)

pytestmark = pytest.mark.kernel(tools=("clang",))

SOURCE = Path(__file__).parents[2] / "bpf" / "packets.bpf.c"
(_inside,) = re.findall(r"rooms\[\] = \{([^}]*)\}", SOURCE.read_text(encoding="utf-8"))
ROOMS = [int(room) if room.isdigit() else SNAPLEN for room in re.findall(r"\w+", _inside)]
LEAST, BIG = 75, 17 * 4096  # super6() makes no shorter packet; before Linux 6.6 a packet socket sends no longer one
MTU = 9000
POOL = random.Random(6).randbytes(1 << 20)
UDP4 = f.ethernet(f.IPV4, f.ipv4(f.UDP, f.udp(b"payload")))
GROUPS, GROUP = 200, 500


@pytest.fixture
def sender(pair: Pair) -> Iterator[Sender]:
    with Sender(pair[0]) as opened:
        yield opened


@pytest.fixture
def offload(pair: Pair) -> Iterator[Sender]:
    with Sender(pair[0], offload=True) as opened:
        yield opened


def octets(size: int, rng: random.Random = random.Random(7)) -> bytes:  # noqa: B008 - one for all
    at = rng.randrange(len(POOL) - size)
    return POOL[at : at + size]


def tcp4(payload: bytes) -> bytes:
    return f.ethernet(f.IPV4, f.ipv4(f.TCP, f.tcp(f.ACK, payload)))


def tcp6(payload: bytes) -> bytes:
    return f.ethernet(f.IPV6, f.ipv6(f.TCP, f.tcp(f.ACK, payload), length=len(payload) + 20 & 0xFFFF))


def udp4(payload: bytes) -> tuple[int, bytes]:
    return f.IPV4, f.ipv4(f.UDP, f.udp(payload))


def udp6(payload: bytes) -> tuple[int, bytes]:
    return f.IPV6, f.ipv6(f.UDP, f.udp(payload))


def super4(size: int) -> bytes:
    """A super-packet of ``size`` octets. Below 64 KiB, an interface takes it as a whole."""
    return virtio(tcp4(octets(size - 54)), linear=54, gso=GSO_TCPV4, size=1448, checksum=(34, 16))


def super6(size: int) -> bytes:
    return virtio(tcp6(octets(size - 74)), linear=74, gso=GSO_TCPV6, size=8900, checksum=(54, 16))


class Mixture:
    """Sends packets of all kinds and sizes."""

    def __init__(self, sender: Sender, offload: Sender, upper: Sender) -> None:
        self._rng = random.Random(1)
        self._kinds: list[tuple[int, Callable[[int], object]]] = [
            (30, lambda size: sender.send(f.ethernet(*udp4(octets(size - 42))))),
            (20, lambda size: sender.send(f.ethernet(*udp6(octets(max(size - 62, 0)))))),
            (15, lambda size: sender.send(tcp4(octets(max(size - 54, 0))))),
            (10, lambda size: sender.send(f.ethernet(*f.tag(f.Q, 5, *udp4(octets(size - 46)))))),
            (4, lambda size: sender.send(f.ethernet(*f.tag(f.AD, 6, *f.tag(f.Q, 7, *udp6(octets(size))))))),
            (10, lambda size: upper.send(f.ethernet(*udp4(octets(size - 42))))),
            (10, lambda size: upper.send(tcp6(octets(size)))),
            (1, lambda size: offload.send(super4(65_535 - self._rng.randrange(150)))),
        ]

    def send(self, count: int) -> None:
        weights = [weight for weight, _ in self._kinds]
        for _, kind in self._rng.choices(self._kinds, weights, k=count):
            # as many short ones as long ones, up to 9,000 octets of IP
            kind(self._rng.choice((self._rng.randint(60, 128), self._rng.randint(60, MTU - 80))))


def test_every_packet_is_there_octet_for_octet(
    pair: Pair, tag_object: Path, sender: Sender, offload: Sender, report: list[str]
) -> None:
    source, target = pair
    drift: list[int] = []
    octets_seen = tags = longest = 0
    with tapped(*pair, size=32 * MIB) as tap, PacketSocket(source) as leaving, PacketSocket(target) as coming:
        with tagging(source, tag_object, tap) as upper:
            mixture = Mixture(sender, offload, upper)
            for number in range(GROUPS):
                with on_cpu(cpus()[number % len(cpus())]):
                    mixture.send(GROUP)
                batches = take(tap, 2 * GROUP * (number + 1))
                packets = [one for batch in batches for one in seen(batch)]
                times = np.concatenate([batch.meta["time_ns"] for batch in batches]).astype(np.int64)
                assert (np.diff(times) >= 0).all()
                tags += sum(int((batch.meta["vlan_proto"] != 0).sum()) for batch in batches)
                pair_of_clocks = clock.read_pair()
                for link, beside in ((source, leaving), (target, coming)):
                    others = beside.read()
                    mine = [at for at, one in enumerate(packets) if one.ifindex == link.ifindex]
                    assert [packets[at] for at in mine] == [one for _, one in others]
                    real = np.array([at for at, _ in others]) - pair_of_clocks.realtime_ns
                    drift += np.abs(times[mine] - pair_of_clocks.monotonic_ns - real).tolist()
                octets_seen += sum(len(one.octets) for one in packets)
                longest = max(longest, *(len(one.octets) for one in packets))
        assert tap.count().copied == 2 * GROUPS * GROUP
        assert (tap.count().lost, tap.losses(0)) == (0, {})
    assert longest > 65_000
    assert np.median(drift) < 1_000_000
    late = np.percentile(drift, [50, 99, 100]) / 1000
    report.append(
        f"{GROUPS * GROUP} packets sent, {len(drift)} seen at both ends, {octets_seen} octets, {tags} tags put back, "
        f"longest {longest}; from a packet socket's time: median {late[0]:.0f} us, 99 % {late[1]:.0f}, "
        f"most {late[2]:.0f}"
    )


@pytest.mark.parametrize("size", [65_460, 65_549])
def test_super_packet(pair: Pair, offload: Sender, size: int) -> None:
    """At egress, before the kernel cuts what is too long for the interface."""
    frame = super6(size)
    with tapped(pair[0], direction="egress") as tap:
        assert exchange(tap, lambda: offload.send(frame), 1) == [Seen(pair[0].ifindex, 1, size, frame[10:])]


def is_whole_at(size: int, tap: Tap, offload: Sender) -> bool:
    """Whether packets of ``size``, and of an octet less and one more, come as they are."""
    frames = [super6(size - 1), super6(size), super6(size + 1)]
    packets = exchange(tap, partial(offload.send, *frames), len(frames))
    return [(one.length, one.octets) for one in packets] == [
        (len(frame) - 10, frame[10 : 10 + SNAPLEN]) for frame in frames
    ]


def test_every_room_of_a_record(pair: Pair, offload: Sender) -> None:
    assert sorted(set(ROOMS)) == ROOMS
    assert all(room % 8 == 0 for room in ROOMS)
    with tapped(pair[0], direction="egress") as tap:
        assert [room for room in ROOMS if LEAST <= room < BIG and not is_whole_at(room, tap, offload)] == []


def test_big_packet_of_every_room(pair: Pair, offload: Sender) -> None:
    """As of BIG TCP."""
    big = [room for room in ROOMS if room >= BIG]
    assert big[-1] == SNAPLEN
    with tapped(pair[0], direction="egress") as tap:
        assert [room for room in big if not is_whole_at(room, tap, offload)] == []


def test_big_packet_beyond_the_largest_snaplen(pair: Pair, offload: Sender) -> None:
    frame = super6(300_000)
    with tapped(pair[0], direction="egress") as tap:
        (packet,) = exchange(tap, lambda: offload.send(frame), 1)
    assert (packet.length, packet.octets) == (300_000, frame[10 : 10 + SNAPLEN])


@pytest.mark.parametrize("attach", ["tcx", "tc"])
def test_tag_beside_a_super_packet(pair: Pair, tag_object: Path, attach: str) -> None:
    frame = super6(65_549)
    with (
        tapped(pair[0], direction="egress", attach=attach) as tap,
        tagging(pair[0], tag_object, tap, offload=True) as upper,
    ):
        (packet,) = exchange(tap, lambda: upper.send(frame), 1)
    assert (packet.length, packet.octets) == (65_553, frame[10:22] + TAG_OCTETS + frame[22:])


@pytest.mark.parametrize("snaplen", [0, 16, 17, 60, 96, 1500, 65_460, 1 << 31])
def test_snaplen_cuts(pair: Pair, tag_object: Path, sender: Sender, offload: Sender, snaplen: int) -> None:
    """The tag that is put back counts, whichever way it was there."""
    plain, inline = f.ethernet(*udp4(octets(1400))), f.ethernet(*f.tag(f.Q, 77, *udp6(octets(3000))))
    beside, long = f.ethernet(*udp4(octets(100))), super4(65_535)
    whole = [plain, inline, beside[:12] + TAG_OCTETS + beside[12:], long[10:]]
    limit = min(max(snaplen, 16), SNAPLEN)

    def send() -> None:
        sender.send(plain, inline)
        upper.send(beside)
        offload.send(long)

    with tapped(*pair) as tap, tagging(pair[0], tag_object, tap) as upper:
        tap.set_snaplen(snaplen)
        packets = exchange(tap, send, 8)
        for direction, link in ((1, pair[0]), (0, pair[1])):
            found = [one for one in packets if one.direction == direction]
            assert found == [Seen(link.ifindex, direction, len(one), one[:limit]) for one in whole]
        tap.set_snaplen(SNAPLEN)  # while the programs run
        assert exchange(tap, lambda: sender.send(plain), 2)[1].octets == plain


@pytest.mark.parametrize("size", [14, 15, 33, 60])
def test_short_packets(pair: Pair, sender: Sender, size: int) -> None:
    with tapped(*pair) as tap:
        packets = exchange(tap, lambda: sender.send(UDP4[:size].ljust(size, b"\0")), 2)
    assert [one.octets for one in packets] == [UDP4[:size].ljust(size, b"\0")] * 2


@pytest.mark.parametrize("linear", [14, 20, 60])
def test_octets_that_are_not_linear(pair: Pair, offload: Sender, linear: int) -> None:
    frame = f.ethernet(*udp4(octets(8000)))
    with tapped(*pair) as tap:
        packets = exchange(tap, lambda: offload.send(virtio(frame, linear=linear)), 2)
    assert [one.octets for one in packets] == [frame] * 2


@pytest.mark.parametrize("attach", ["tcx", "tc"])
def test_interface_without_ethernet(lab: Lab, attach: str) -> None:
    packets = [f.ipv4(f.UDP, f.udp(octets(6))), f.ipv6(f.TCP, f.tcp(f.SYN))]
    with Tun(lab, lab.namespace("l3"), "tun0") as tun, tapped(tun.link, attach=attach) as tap:
        coming = exchange(tap, lambda: tun.send(*packets), 2)
        assert coming == [Seen(tun.link.ifindex, 0, len(one), one) for one in packets]
        with Sender(tun.link) as sender:
            leaving = exchange(tap, lambda: sender.send(packets[0]), 1)
        assert leaving == [Seen(tun.link.ifindex, 1, len(packets[0]), packets[0])]
        assert tap.read(MIB, now_ns()).meta["link"].tolist() == []


@pytest.mark.parametrize("direction", ["ingress", "egress"])
def test_one_direction_only(pair: Pair, sender: Sender, direction: str) -> None:
    way = ("ingress", "egress").index(direction)
    with tapped(*pair, direction=direction) as tap:
        packets = exchange(tap, lambda: sender.send(UDP4), 1)
    assert packets == [Seen(pair[1 - way].ifindex, way, len(UDP4), UDP4)]


def test_a_packet_is_not_changed(pair: Pair, sender: Sender) -> None:
    with PacketSocket(pair[1]) as beside:
        sender.send(UDP4)
        with tapped(*pair) as tap:
            exchange(tap, lambda: sender.send(UDP4), 2)
        assert [one.octets for _, one in beside.read()] == [UDP4, UDP4]
