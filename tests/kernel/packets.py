"""Packets through a ``Tap`` on real interfaces, and what a packet socket sees of the same ones."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.namespaces import Lab, Link, in_namespace
from lab.wire import Sender, wait_for
from netobs.config.selector import InterfaceSelector
from netobs.kernel.attach import BPF_F_BEFORE, PACKETS_PLACE
from netobs.pcap.batch import PacketBatch
from netobs.pcap.selection import Filter, Instruction, Selection
from netobs.pcap.tap.tap import Tap
from tests.kernel.foreign import Foreign, qdiscs, tcx_programs

Pair = tuple[Link, Link]

MIB = 1 << 20
RETURN = 0x06  # BPF_RET|BPF_K
ALL = Filter("all", ((Instruction(RETURN, 0, 0, 1),),), ((Instruction(RETURN, 0, 0, 1),),))

TAG, TAG_OCTETS = 77, bytes.fromhex("8100004d")  # what tag.bpf.c pushes

ETH_P_ALL, SOL_PACKET, PACKET_AUXDATA = 0x0003, 263, 8
SO_RCVBUFFORCE, SO_TIMESTAMPNS, PACKET_OUTGOING = 33, 35, 4
VLAN_VALID = 1 << 4  # TP_STATUS_VLAN_VALID
LONGEST = 1 << 19


@dataclass(frozen=True)
class Seen:
    """A packet, as anybody sees it: the tag is in its place."""

    ifindex: int
    direction: int
    length: int
    octets: bytes


def now_ns() -> int:
    return time.monotonic_ns()


def seen(batch: PacketBatch) -> list[Seen]:
    """The packets of a batch, in its order."""
    meta = batch.meta
    columns = (meta["ifindex"].tolist(), meta["direction"].tolist(), meta["length"].tolist(), meta["caplen"].tolist())
    return [
        Seen(ifindex, direction, length, bytes(batch.buffer[at : at + caplen]))
        for at, ifindex, direction, length, caplen in zip(batch.start.tolist(), *columns)
    ]


@contextlib.contextmanager
def tap_on(ns: str, *names: str, method: str = "auto", direction: str = "both", size: int = MIB) -> Iterator[Tap]:
    """A tap that is loaded; nothing is selected."""
    with in_namespace(ns):
        tap = Tap(InterfaceSelector(names), direction, size, method)
        try:
            tap.load()
            yield tap
        finally:
            tap.close()


def attach_all(tap: Tap) -> None:
    """All slices, as a loop does them one by one: a slice has a time, on a busy machine it is for few interfaces."""
    while tap.attach_some():
        pass


def choose(tap: Tap, selection: Selection) -> int:
    """Selects on all interfaces; the bit."""
    bit = tap.select(selection, now_ns())
    attach_all(tap)
    return bit


def release(tap: Tap, bit: int) -> None:
    """Nobody selects by ``bit`` any more."""
    tap.release(bit, now_ns())
    attach_all(tap)


@contextlib.contextmanager
def tapped(
    *links: Link,
    filters: Sequence[Filter] = (ALL,),
    direction: str = "both",
    size: int = 16 * MIB,
    attach: str = "auto",
) -> Iterator[Tap]:
    """A tap on ``links``, of one namespace, where the test stays; ``filters`` have the bits 0, 1, ..."""
    with tap_on(links[0].ns, *(link.name for link in links), method=attach, direction=direction, size=size) as tap:
        for number, one in enumerate(filters):
            assert choose(tap, Selection(one)) == number
        yield tap


@contextlib.contextmanager
def tagging(link: Link, tag_object: Path, tap: Tap, offload: bool = False) -> Iterator[Sender]:
    """A sender, on an interface of ``tap``, whose packets have a tag beside their octets when they get to it."""
    with Foreign(tag_object) as foreign, Sender(link, offload, mark=TAG) as sender:
        if tap.method == "tcx":
            foreign.attach_tcx(link, "egress", "push_tag", BPF_F_BEFORE)
            yield sender
        else:
            foreign.attach_tc(link, "egress", PACKETS_PLACE.priority, "push_tag")
            yield sender
            foreign.detach_tc(link, "egress", PACKETS_PLACE.priority)


def nothing_is_left(lab: Lab, link: Link, method: str) -> bool:
    if method == "tcx" and tcx_programs(link, "ingress") + tcx_programs(link, "egress"):
        return False
    return qdiscs(lab, link) == ["noqueue"]


def held_objects() -> dict[str, set[int]]:
    """The kernel's numbers of the programs, maps and links that this process has descriptors of."""
    found: dict[str, set[int]] = {"prog_id": set(), "map_id": set(), "link_id": set()}
    for number in os.listdir("/proc/self/fdinfo"):
        with contextlib.suppress(FileNotFoundError):
            for line in Path("/proc/self/fdinfo", number).read_text(encoding="ascii").splitlines():
                key, _, value = line.partition(":\t")
                if key in found:
                    found[key].add(int(value))
    return found


def read_all(tap: Tap, max_bytes: int = 64 * MIB) -> list[PacketBatch]:
    """What the rings hold."""
    batches = [tap.read(max_bytes, now_ns())]
    while tap.backlog_bytes:
        batches.append(tap.read(max_bytes, now_ns()))
    return batches


def take(tap: Tap, count: int, max_bytes: int = 64 * MIB) -> list[PacketBatch]:
    """Reads until ``count`` packets more have been copied, lost, or left out, and all that were copied are read."""
    batches: list[PacketBatch] = []

    def done() -> bool:
        total = tap.count()
        batches.extend(read_all(tap, max_bytes))
        return total.copied + total.lost + total.own >= count

    wait_for(done, f"{count} packets")
    return [*batches, *read_all(tap, max_bytes)]


def exchange(tap: Tap, send: Callable[[], Any], count: int) -> list[Seen]:
    """Sends, and takes ``count`` packets."""
    before = tap.count()
    send()
    batches = take(tap, before.copied + before.lost + before.own + count)
    return [one for batch in batches for one in seen(batch)]


class PacketSocket:
    """What a packet socket on one interface sees, as tcpdump does."""

    def __init__(self, link: Link, buffer_bytes: int = 512 * MIB) -> None:
        with in_namespace(link.ns):
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
            self._socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, buffer_bytes)
            self._socket.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
            self._socket.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
            self._socket.bind((link.name, ETH_P_ALL))
        self._socket.setblocking(False)
        self._ifindex = link.ifindex

    def __enter__(self) -> PacketSocket:
        return self

    def __exit__(self, *exc: object) -> None:
        self._socket.close()

    def read(self) -> list[tuple[int, Seen]]:
        """(CLOCK_REALTIME in ns, packet) of each packet since the last call."""
        found: list[tuple[int, Seen]] = []
        while True:
            try:
                octets, control, _, (_, _, kind, *_) = self._socket.recvmsg(LONGEST, 256)
            except BlockingIOError:
                return found
            told = {(level, number): data for level, number, data in control}
            seconds, ns = struct.unpack("=qq", told[socket.SOL_SOCKET, SO_TIMESTAMPNS])
            status, _, _, _, _, tci, tpid = struct.unpack("=IIIHHHH", told[SOL_PACKET, PACKET_AUXDATA])
            if status & VLAN_VALID:
                octets = octets[:12] + struct.pack("!HH", tpid, tci) + octets[12:]
            packet = Seen(self._ifindex, int(kind == PACKET_OUTGOING), len(octets), octets)
            found.append((seconds * 1_000_000_000 + ns, packet))
