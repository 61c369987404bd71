"""The reader of capture files, over files made byte by byte."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import pytest

from lab.namespaces import LabError
from lab.pcap import Packet, is_capture, packets, read_pcap

MAGIC = {1000: 0xA1B2C3D4, 1: 0xA1B23C4D}


def classic(order: str, unit_ns: int, link: int = 1) -> bytes:
    """A packet of 5 octets of which 3 were kept, 7 s and 9 units after 1970, and an empty one."""
    header = struct.pack(f"{order}IHHiIII", MAGIC[unit_ns], 2, 4, 0, 0, 65535, link)
    return header + struct.pack(f"{order}IIII", 7, 9, 3, 5) + b"abc" + struct.pack(f"{order}IIII", 8, 0, 0, 0)


def block(order: str, kind: int, body: bytes) -> bytes:
    size = len(body) + 12
    return struct.pack(f"{order}II", kind, size) + body + struct.pack(f"{order}I", size)


def section(order: str) -> bytes:
    return block(order, 0x0A0D0D0A, struct.pack(f"{order}IHHq", 0x1A2B3C4D, 1, 0, -1))


def interface(order: str, link: int, *options: tuple[int, bytes], snaplen: int = 0) -> bytes:
    body = struct.pack(f"{order}HHI", link, 0, snaplen)
    for code, value in (*options, (0, b"")):
        body += struct.pack(f"{order}HH", code, len(value)) + value + bytes(-len(value) % 4)
    return block(order, 1, body)


def packet(order: str, number: int, units: int, octets: bytes, length: int) -> bytes:
    fields = struct.pack(f"{order}IIIII", number, units >> 32, units & 0xFFFFFFFF, len(octets), length)
    return block(order, 6, fields + octets + bytes(-len(octets) % 4))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "file"


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("unit_ns", [1000, 1])
def test_classic(file: Path, order: str, unit_ns: int) -> None:
    file.write_bytes(classic(order, unit_ns, link=0x1400_0000 | 101))  # the upper bits tell of a checksum
    expected = [Packet(7_000_000_000 + 9 * unit_ns, 5, b"abc", 101), Packet(8_000_000_000, 0, b"", 101)]
    assert read_pcap(file) == expected
    assert is_capture(file)


def test_gzip(file: Path) -> None:
    whole = gzip.compress(classic("<", 1))
    file.write_bytes(whole)
    assert [packet.octets for packet in packets(file)] == [b"abc", b""]
    assert is_capture(file)
    file.write_bytes(whole[:-12])
    with pytest.raises(LabError, match="file: "):
        read_pcap(file)


@pytest.mark.parametrize("order", "<>")
def test_pcapng(file: Path, order: str) -> None:
    offset = struct.pack(f"{order}q", 100)
    blocks = [
        section(order),
        interface(order, 1),
        interface(order, 101, (2, b"tun0"), (9, b"\x09"), (14, offset)),
        interface(order, 228, (9, b"\x8a")),  # 1024 units in a second
        packet(order, 1, (1 << 32) + 5, b"abcde", 9),
        packet(order, 0, 5, b"", 0),
        packet(order, 2, 2560, b"x", 1),
        block(order, 2, struct.pack(f"{order}HHIIII", 1, 3, 0, 6, 2, 2) + b"xy\0\0"),
        block(order, 0x0BAD, b"any?"),
        section("<>"[order == "<"]),
        interface("<>"[order == "<"], 113, snaplen=4),
        block("<>"[order == "<"], 3, struct.pack("<>"[order == "<"] + "I", 6) + b"simp"),
    ]
    file.write_bytes(b"".join(blocks))
    assert read_pcap(file) == [
        Packet(100_000_000_000 + (1 << 32) + 5, 9, b"abcde", 101),
        Packet(5_000, 0, b"", 1),
        Packet(2_500_000_000, 1, b"x", 228),
        Packet(100_000_000_006, 2, b"xy", 101),
        Packet(0, 6, b"simp", 113),
    ]
    assert is_capture(file)


DAMAGED = {
    "no pcap or pcapng": (0, b"#!/bin/sh\nexit 0\n"),
    "ends within its header": (0, classic("<", 1)[:4]),
    "ends within packet or block 0": (0, classic("<", 1)[:-18]),
    "ends within packet or block 1": (1, classic("<", 1)[:-1]),
    "4294967295 bytes": (0, classic("<", 1)[:24] + struct.pack("<IIII", 0, 0, 0xFFFFFFFF, 60)),
    "block 1 is 13 bytes long": (0, section("<") + struct.pack("<II", 6, 13) + bytes(5)),
    "without a byte order": (0, section("<")[:8] + bytes(20)),
    "block 1 is damaged": (0, section("<") + packet("<", 0, 0, b"abcd", 4)),
    "ends within packet or block 2": (0, section("<") + interface("<", 1) + packet("<", 0, 0, b"abcd", 4)[:20]),
}


@pytest.mark.parametrize("words", DAMAGED)
def test_damage_is_said_where_it_is(file: Path, words: str) -> None:
    whole, data = DAMAGED[words]
    file.write_bytes(data)
    read = packets(file)
    assert [next(read).octets for _ in range(whole)] == [b"abc"][:whole]
    with pytest.raises(LabError, match=words):
        next(read)


def test_other_files_are_no_captures(file: Path) -> None:
    for data in (b"", b"\x1f\x8b", gzip.compress(b"text"), b"text"):
        file.write_bytes(data)
        assert not is_capture(file)
