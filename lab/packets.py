"""Packets as the tap hands them over, made from bytes, and what the readers of others say of a stream."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from netobs.kernel.interfaces import Interface
from netobs.pcap.batch import HEADROOM_BYTES, PacketBatch
from netobs.pcap.selection import LINK_ETHERNET, LINK_IP
from netobs.pcap.tap.layout import META

SECOND = 1_000_000_000
OFFSET_NS = 1_700_000_000 * SECOND + 123_456_789  # CLOCK_REALTIME less CLOCK_MONOTONIC
INGRESS, EGRESS = 0, 1

ETH0 = Interface(2, "eth0", 1, alias="to the core, port 7")
ETH1 = Interface(3, "eth1", 1)
WG0 = Interface(9, "wg0", 65534)
INTERFACES = {interface.index: interface for interface in (ETH0, ETH1, WG0)}


@dataclass(frozen=True)
class Packet:
    """``octets``: what was captured of ``length``."""

    octets: bytes
    time_ns: int = 5 * SECOND
    ifindex: int = 2
    direction: int = INGRESS
    link: int = LINK_ETHERNET
    filters: int = 1
    length: int = 0


def udp(size: int, number: int = 0, link: int = LINK_ETHERNET) -> bytes:
    """An IPv4 UDP packet of ``size`` octets in all, numbered in its payload."""
    ethernet = bytes.fromhex("0200000000020200000000010800") if link == LINK_ETHERNET else b""
    payload = struct.pack(">Q", number).ljust(size - len(ethernet) - 28, b"\xa5")
    ip = struct.pack(
        ">BBHHHBBH4s4s", 0x45, 0, 28 + len(payload) & 0xFFFF, 0, 0, 64, 17, 0, b"\x0a\0\0\1", b"\x0a\0\0\2"
    )
    words = struct.unpack(">10H", ip)
    total = sum(words)
    checksum = ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF
    ip = ip[:10] + struct.pack(">H", checksum) + ip[12:]
    return ethernet + ip + struct.pack(">HHHH", 4000, 4001, 8 + len(payload) & 0xFFFF, 0) + payload


def batch_of(packets: Iterable[Packet], gap: int = 28, tail: int = 0) -> PacketBatch:
    """As the tap makes them: ``gap`` bytes of something else before each packet's headroom, ``tail`` after the last."""
    packets = list(packets)
    meta, start, buffer = np.zeros(len(packets), dtype=META), np.zeros(len(packets), dtype=np.int64), bytearray()
    for row, packet in enumerate(packets):
        buffer += b"\xee" * (gap + HEADROOM_BYTES + -len(buffer) % 4)
        start[row] = len(buffer)
        buffer += packet.octets
        meta[row] = (
            packet.filters,
            packet.ifindex,
            0,
            0,
            packet.direction,
            packet.link,
            0,
            packet.time_ns,
            len(packet.octets),
            packet.length or len(packet.octets),
        )
    return PacketBatch(buffer + b"\xee" * tail, meta, start)


def mixed(count: int, seed: int = 1, links: Sequence[int] = (LINK_ETHERNET,)) -> list[Packet]:
    """``count`` packets of 60 to 9000 octets, some of them cut, of two interfaces for Ethernet and one for IP."""
    chance = random.Random(seed)
    packets = []
    for number in range(count):
        link = chance.choice(links)
        size = chance.choice((60, 61, 62, 63, 100, 1500, chance.randint(60, 9000)))
        whole = udp(size, number, link)
        octets = whole[: chance.choice((size, size, 50, 97))]
        ifindex = 9 if link == LINK_IP else chance.choice((2, 3))
        time_ns = 5 * SECOND + number * 1_000_003
        packets.append(Packet(octets, time_ns, ifindex, chance.choice((INGRESS, EGRESS)), link, length=size))
    return packets


def all_rows(batch: PacketBatch) -> npt.NDArray[np.int_]:
    return np.arange(len(batch))
