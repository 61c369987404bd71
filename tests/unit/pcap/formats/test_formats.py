"""pcap and pcapng, byte by byte; what the tools of others read is in tests/e2e/test_packet_formats.py."""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from lab.packets import (
    EGRESS,
    ETH0,
    INGRESS,
    INTERFACES,
    OFFSET_NS,
    SECOND,
    WG0,
    Packet,
    all_rows,
    batch_of,
    mixed,
    udp,
)
from netobs import __version__
from netobs.base.vectors import write
from netobs.kernel.interfaces import Interface
from netobs.pcap.distribution import ReadContext
from netobs.pcap.formats import stream_of
from netobs.pcap.formats.pcap import PcapStream
from netobs.pcap.formats.pcapng import STATISTICS_BYTES, PcapngStream
from netobs.pcap.formats.stream import MAGIC_NUMBERS
from netobs.pcap.selection import LINK_ETHERNET, LINK_IP

BOTH_LINKS = (LINK_ETHERNET, LINK_IP)
CONTEXT = ReadContext(now_ns=7 * SECOND, offset_ns=OFFSET_NS, interfaces=INTERFACES)


def pcapng(snaplen: int, filter_text: str, captured: Sequence[Interface] = ()) -> PcapngStream:
    return PcapngStream(snaplen, filter_text, INTERFACES, lambda: captured, start_ns=0)


class Block(NamedTuple):
    kind: int
    fields: bytes
    options: dict[int, bytes]


FIXED = {0x0A0D0D0A: 16, 1: 8, 5: 12}  # octets of a block's fields before its options


def blocks(data: bytes) -> list[Block]:
    """The blocks of a section; the payload of an Enhanced Packet Block is in its fields."""
    found = []
    while data:
        kind, total = struct.unpack_from("<II", data)
        assert total % 4 == 0
        assert struct.unpack_from("<I", data, total - 4)[0] == total
        body, data = data[8 : total - 4], data[total:]
        size = FIXED[kind] if kind in FIXED else 20 + (struct.unpack_from("<I", body, 12)[0] + 3 & ~3)
        found.append(Block(kind, body[:size], options(body[size:])))
    return found


def options(data: bytes) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    while True:
        code, size = struct.unpack_from("<HH", data)
        if code == 0:
            assert data == b"\0\0\0\0"
            return found
        found[code] = data[4 : 4 + size]
        assert not any(data[4 + size : 4 + size + -size % 4])
        data = data[4 + size + -size % 4 :]


def records(data: bytes) -> list[tuple[int, int, int, bytes]]:
    """Seconds, nanoseconds, original length and octets of each record of a pcap stream behind its header."""
    found, place = [], 0
    while place < len(data):
        seconds, nanoseconds, captured, length = struct.unpack_from("<IIII", data, place)
        found.append((seconds, nanoseconds, length, data[place + 16 : place + 16 + captured]))
        place += 16 + captured
    assert place == len(data)
    return found


def in_pcap(packet: Packet, snaplen: int = 262_144) -> tuple[int, int, int, bytes]:
    wall_ns = packet.time_ns + OFFSET_NS
    return wall_ns // SECOND, wall_ns % SECOND, packet.length or len(packet.octets), packet.octets[:snaplen]


def test_header_of_pcap() -> None:
    assert PcapStream(262_144, LINK_ETHERNET).header().hex() == "4d3cb2a10200040000000000000000000000040001000000"
    assert PcapStream(96, LINK_IP).header().hex() == "4d3cb2a10200040000000000000000006000000065000000"


@pytest.mark.parametrize("name", MAGIC_NUMBERS)
def test_magic_number(name: str) -> None:
    stream = PcapStream(96, LINK_ETHERNET) if name == "pcap" else pcapng(96, "tcp")
    assert stream.header().startswith(MAGIC_NUMBERS[name])


@pytest.mark.parametrize("snaplen", [262_144, 64])
def test_pcap_has_every_octet_time_and_length(snaplen: int) -> None:
    packets = mixed(300)
    batch = batch_of(packets)
    made = PcapStream(snaplen, LINK_ETHERNET).records(batch, all_rows(batch), CONTEXT)
    assert records(made.body) == [in_pcap(packet, snaplen) for packet in packets]
    assert made.head == b""
    assert made.ends[-1] == len(made.body)


def test_a_record_ends_where_it_is_said_to() -> None:
    packets = mixed(50)
    batch = batch_of(packets)
    for stream in (PcapStream(1000, LINK_ETHERNET), pcapng(1000, "tcp")):
        made = stream.records(batch, all_rows(batch), CONTEXT)
        for count in (1, 7, 50):
            part = made.body[: int(made.ends[count - 1])]
            assert len(records(part) if isinstance(stream, PcapStream) else blocks(part)) == count


@pytest.mark.parametrize("snaplen", [262_144, 65, 64])
@pytest.mark.parametrize("name", MAGIC_NUMBERS)
def test_where_it_lies_is_what_is_joined(name: str, snaplen: int, tmp_path: Path) -> None:
    packets = mixed(400)
    batch = batch_of(packets, gap=0)
    rows = np.arange(1, 400, 3)
    made = stream_of(name, LINK_ETHERNET, snaplen, "tcp").records(batch, rows, CONTEXT)
    for count in (1, 2, 130, len(made)):
        with (tmp_path / str(count)).open("wb") as file:
            assert write(file.fileno(), made.gather(count)) == made.ends[count - 1]
    for count in (1, 2, 130, len(made)):
        assert (tmp_path / str(count)).read_bytes() == made.body[: int(made.ends[count - 1])]


def test_pcap_leaves_out_other_links() -> None:
    packets = mixed(100, links=BOTH_LINKS)
    batch = batch_of(packets)
    for link in BOTH_LINKS:
        made = PcapStream(262_144, link).records(batch, all_rows(batch), CONTEXT)
        assert records(made.body) == [in_pcap(packet) for packet in packets if packet.link == link]


def test_only_the_rows_that_were_asked_for() -> None:
    packets = mixed(100)
    batch = batch_of(packets)
    rows = np.arange(3, 100, 7)
    made = PcapStream(262_144, LINK_ETHERNET).records(batch, rows, CONTEXT)
    assert records(made.body) == [in_pcap(packets[row]) for row in rows]


def test_no_rows_no_bytes() -> None:
    batch = batch_of(mixed(3))
    for stream in (PcapStream(96, LINK_ETHERNET), pcapng(96, "tcp")):
        made = stream.records(batch, np.arange(0), CONTEXT)
        assert (len(made), made.head, made.body) == (0, b"", b"")


def test_section_and_interfaces_of_pcapng() -> None:
    stream = pcapng(4096, "tcp,80")
    batch = batch_of([Packet(udp(60)), Packet(udp(60, link=LINK_IP), ifindex=9, link=LINK_IP), Packet(udp(61))])
    made = stream.records(batch, all_rows(batch), CONTEXT)
    (section,) = blocks(pcapng(4096, "tcp,80").header())
    assert section.fields == struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1)
    assert section.options[4].decode() == f"netobs {__version__}"
    assert section.options[3].decode() == f"Linux {os.uname().release}"
    eth0, wg0 = blocks(made.head)
    assert (eth0.kind, eth0.fields) == (1, struct.pack("<HHI", 1, 0, 4096))
    assert eth0.options == {2: b"eth0", 3: ETH0.alias.encode(), 9: b"\x09", 11: b"\0tcp,80"}
    assert (wg0.fields, wg0.options) == (struct.pack("<HHI", 101, 0, 4096), {2: b"wg0", 9: b"\x09", 11: b"\0tcp,80"})
    assert [block.fields[:4] for block in blocks(made.body)] == [b"\0\0\0\0", b"\1\0\0\0", b"\0\0\0\0"]
    assert stream.records(batch, all_rows(batch), CONTEXT).head == b""


@pytest.mark.parametrize("snaplen", [262_144, 65])
def test_pcapng_has_every_octet_time_length_and_direction(snaplen: int) -> None:
    packets = mixed(300, links=BOTH_LINKS)
    batch = batch_of(packets)
    stream = pcapng(snaplen, "tcp")
    made = stream.records(batch, all_rows(batch), CONTEXT)
    places = {interface.index: place for place, interface in enumerate(stream.interfaces)}
    for packet, block in zip(packets, blocks(made.body)):
        octets = packet.octets[:snaplen]
        wall_ns = packet.time_ns + OFFSET_NS
        place, high, low, captured, length = struct.unpack_from("<IIIII", block.fields)
        assert (block.kind, place, high << 32 | low) == (6, places[packet.ifindex], wall_ns)
        assert (captured, length) == (len(octets), packet.length)
        assert block.fields[20:] == octets + bytes(-len(octets) % 4)  # the padding is zeros
        assert block.options == {2: struct.pack("<I", 1 if packet.direction == INGRESS else 2)}
    assert len(blocks(made.body)) == len(packets)
    assert {packet.direction for packet in packets} == {INGRESS, EGRESS}


def test_a_format_leaves_the_packets_as_they_were() -> None:
    packets = mixed(200)
    batch = batch_of(packets)
    before = [bytes(batch.buffer[start : start + len(packet.octets)]) for start, packet in zip(batch.start, packets)]
    for snaplen in (61, 62, 63, 262_144):
        for stream in (PcapStream(snaplen, LINK_ETHERNET), pcapng(snaplen, "tcp")):
            assert stream.records(batch, all_rows(batch), CONTEXT).body
    after = [bytes(batch.buffer[start : start + len(packet.octets)]) for start, packet in zip(batch.start, packets)]
    assert after == before == [packet.octets for packet in packets]


@pytest.mark.parametrize("size", [60, 61, 62, 63])
@pytest.mark.parametrize("tail", [0, 1, 3])
def test_padding_beyond_the_end_of_the_buffer(size: int, tail: int) -> None:
    batch = batch_of([Packet(udp(size))], tail=tail)
    (block,) = blocks(pcapng(96, "tcp").records(batch, all_rows(batch), CONTEXT).body)
    assert block.fields[20:] == udp(size) + bytes(-size % 4)
    assert batch.buffer.endswith(b"\xee" * tail)


def test_an_interface_that_comes_back_is_another_one() -> None:
    stream = pcapng(96, "tcp")
    batch = batch_of([Packet(udp(60))])
    rows = all_rows(batch)
    again = batch_of([Packet(udp(60), ifindex=12)])

    def known(*interfaces: Interface) -> ReadContext:
        return CONTEXT._replace(interfaces={interface.index: interface for interface in interfaces})

    uplink = replace(ETH0, name="uplink")
    heads = [
        stream.records(batch, rows, CONTEXT).head,
        stream.records(again, rows, known(replace(ETH0, index=12))).head,  # made anew, with its old name
        stream.records(batch, rows, known(uplink)).head,  # given another name
        stream.records(batch, rows, known(replace(uplink, alias="new"))).head,  # the same
        stream.records(again, rows, known()).head,  # gone, and nobody knows its name
    ]
    names = [[block.options[2] for block in blocks(head)] for head in heads]
    assert names == [[b"eth0"], [b"eth0"], [b"uplink"], [], [b"if12"]]
    last = stream.records(again, rows, known(replace(ETH0, index=12)))
    assert (last.head, last.body[8:12]) == (b"", b"\1\0\0\0")


def statistics(stream: PcapngStream, lost: dict[int, int]) -> dict[int, dict[int, int]]:
    """The counts of each block, by interface."""
    made = stream.statistics(lost, CONTEXT)
    assert len(made) % STATISTICS_BYTES == 0
    assert len(made) <= stream.reserve_bytes
    found = {}
    for block in blocks(made):
        place, high, low = struct.unpack("<III", block.fields)
        assert (block.kind, high << 32 | low) == (5, OFFSET_NS + 7 * SECOND)
        times = {code: struct.unpack("<II", block.options[code]) for code in (2, 3)}
        assert times == {2: divmod(OFFSET_NS, 1 << 32), 3: divmod(OFFSET_NS + 7 * SECOND, 1 << 32)}
        found[place] = {code: struct.unpack("<Q", block.options[code])[0] for code in (4, 5, 6, 7, 8)}
    return found


def test_statistics_of_pcapng() -> None:
    stream = pcapng(96, "tcp", [ETH0, WG0])
    batch = batch_of([Packet(udp(60))] * 12)
    made = stream.records(batch, all_rows(batch), CONTEXT)
    stream.count(made, 4)
    stream.count(made, 6, 2)
    assert statistics(stream, {ETH0.index: 3}) == {0: {4: 15, 5: 5, 6: 15, 7: 3, 8: 10}}


def test_introduction_tells_only_what_is_new() -> None:
    stream = pcapng(96, "tcp", [ETH0, WG0])
    assert [block.options[2] for block in blocks(stream.introduction({WG0.index: 1}))] == [b"wg0"]
    assert stream.introduction({WG0.index: 2, 1234: 1}) == b""
    assert statistics(stream, {WG0.index: 2, 1234: 1}) == {0: {4: 2, 5: 2, 6: 2, 7: 2, 8: 0}}


def test_without_a_packet_the_captured_interfaces_of_one_link_are_introduced() -> None:
    introduced = blocks(pcapng(96, "tcp", [WG0, ETH0]).introduction({}))
    assert [block.options[2] for block in introduced] == [b"eth0"]


def test_counts_of_an_interface_that_got_another_name() -> None:
    """It has two places: what it lost is known by its index alone, and counts once."""
    stream = pcapng(96, "tcp")
    both = batch_of([Packet(udp(60)), Packet(udp(60)), Packet(udp(60, link=LINK_IP), ifindex=9, link=LINK_IP)])
    stream.count(stream.records(both, all_rows(both), CONTEXT), 3)
    renamed = CONTEXT._replace(interfaces={**INTERFACES, ETH0.index: replace(ETH0, name="uplink")})
    again = batch_of([Packet(udp(60))] * 2)
    stream.count(stream.records(again, all_rows(again), renamed), 1, 1)
    assert statistics(stream, {ETH0.index: 5, 1234: 7}) == {
        0: {4: 2, 5: 0, 6: 2, 7: 0, 8: 2},
        1: {4: 1, 5: 0, 6: 1, 7: 0, 8: 1},
        2: {4: 7, 5: 6, 6: 7, 7: 5, 8: 1},
    }


def test_pcap_has_no_place_for_statistics() -> None:
    stream = PcapStream(96, LINK_ETHERNET)
    assert (stream.introduction({1: 1}), stream.statistics({1: 1}, CONTEXT), stream.reserve_bytes) == (b"", b"", 0)


def test_names_that_are_no_unicode() -> None:
    stream = PcapngStream(96, "tcp", {}, lambda: [Interface(5, "v\udcff0", 1)], 0)
    (block,) = blocks(stream.introduction({}))
    assert block.options[2] == b"v?0"
