"""Reading capture files: classic pcap (draft-ietf-opsawg-pcap) and pcapng (draft-ietf-opsawg-pcapng), gzip too."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from lab.namespaces import LabError

ETHERNET = 1
_GZIP = b"\x1f\x8b"
_CLASSIC = {
    b"\xd4\xc3\xb2\xa1": ("<", 1000),
    b"\xa1\xb2\xc3\xd4": (">", 1000),
    b"\x4d\x3c\xb2\xa1": ("<", 1),
    b"\xa1\xb2\x3c\x4d": (">", 1),
}
_SECTION, _INTERFACE, _OLD_PACKET, _SIMPLE_PACKET, _PACKET = 0x0A0D0D0A, 1, 2, 3, 6
_SECTION_MAGIC = _SECTION.to_bytes(4, "big")
_ORDERS = {b"\x4d\x3c\x2b\x1a": "<", b"\x1a\x2b\x3c\x4d": ">"}
_END_OF_OPTIONS, _RESOLUTION, _OFFSET = 0, 9, 14
_MAX_BLOCK_BYTES = 1 << 26
_NS_PER_S = 1_000_000_000


class Packet(NamedTuple):
    """A record of a capture file. ``length`` on the wire; ``octets``: what was kept; ``link``: the LINKTYPE.

    ``time_ns`` is 0 where the file has no times (Simple Packet Blocks).
    """

    time_ns: int
    length: int
    octets: bytes
    link: int = ETHERNET


class _Interface(NamedTuple):
    """An Interface Description Block. A unit of time is ``1 / units_per_s`` s. ``snaplen`` 0: no limit."""

    link: int
    snaplen: int
    units_per_s: int
    offset_s: int


def read_pcap(path: Path) -> list[Packet]:
    """All packets of a file. ``LabError`` where it is damaged, or ends within a packet."""
    return list(packets(path))


def packets(path: Path) -> Iterator[Packet]:
    """The packets of a file one by one. ``LabError`` at the place where it is damaged, or ends within a packet."""
    with path.open("rb") as raw:
        compressed = raw.read(2) == _GZIP
        raw.seek(0)
        if not compressed:
            yield from _packets(path, raw)
            return
        try:
            with gzip.GzipFile(fileobj=raw) as plain:
                yield from _packets(path, plain)  # type: ignore[arg-type]  # it reads, which is all that is asked for
        except (EOFError, OSError) as error:
            raise LabError(f"{path}: {error}") from error


def is_capture(path: Path) -> bool:
    """Whether a file begins as a pcap or pcapng file does, once gzip is undone."""
    try:
        with path.open("rb") as raw:
            compressed = raw.read(2) == _GZIP
            raw.seek(0)
            magic = gzip.GzipFile(fileobj=raw).read(4) if compressed else raw.read(4)
    except (EOFError, OSError):
        return False
    return magic in _CLASSIC or magic == _SECTION_MAGIC


def _packets(path: Path, file: BinaryIO) -> Iterator[Packet]:
    magic = file.read(4)
    if magic in _CLASSIC:
        yield from _classic(path, file, *_CLASSIC[magic])
    elif magic == _SECTION_MAGIC:
        yield from _blocks(path, file)
    else:
        raise LabError(f"{path}: no pcap or pcapng file: {magic + file.read(12)!r}")


def _read(path: Path, file: BinaryIO, size: int, number: int) -> bytes:
    """``size`` bytes of packet or block ``number``; b"" at the end of the file. ``LabError`` if it ends within."""
    if size > _MAX_BLOCK_BYTES:
        raise LabError(f"{path}: damaged at packet or block {number}: {size} bytes long")
    data = file.read(size)
    if data and len(data) < size:
        raise LabError(f"{path}: ends within packet or block {number}")
    return data


def _classic(path: Path, file: BinaryIO, order: str, unit_ns: int) -> Iterator[Packet]:
    header = _read(path, file, 20, 0)
    if not header:
        raise LabError(f"{path}: ends within its header")
    (link,) = struct.unpack(f"{order}16xI", header)
    record = struct.Struct(f"{order}IIII")
    number = 0
    while head := _read(path, file, record.size, number):
        seconds, fraction, kept, length = record.unpack(head)
        octets = _read(path, file, kept, number)
        if kept and not octets:
            raise LabError(f"{path}: ends within packet or block {number}")
        # The upper bits say whether frames end with a checksum.
        yield Packet(seconds * _NS_PER_S + fraction * unit_ns, length, octets, link & 0xFFFF)
        number += 1


def _blocks(path: Path, file: BinaryIO) -> Iterator[Packet]:
    """The packets of all sections, each of which has its byte order and its interfaces."""
    file.seek(0)
    interfaces: list[_Interface] = []
    order = "<"
    number = 0
    while head := _read(path, file, 8, number):
        if head[:4] == _SECTION_MAGIC:
            magic = _read(path, file, 4, number)
            if magic not in _ORDERS:
                raise LabError(f"{path}: block {number} begins a section without a byte order: {magic!r}")
            order, interfaces = _ORDERS[magic], []
            head += magic
        kind, size = struct.unpack_from(f"{order}II", head)
        if size < len(head) + 4 or size % 4:
            raise LabError(f"{path}: block {number} is {size} bytes long")
        body = _read(path, file, size - len(head), number)
        if not body:
            raise LabError(f"{path}: ends within packet or block {number}")
        try:
            if kind == _INTERFACE:
                interfaces.append(_interface(order, body[:-4]))
            elif kind in {_OLD_PACKET, _SIMPLE_PACKET, _PACKET}:
                yield _packet(order, kind, body[:-4], interfaces)
        except (struct.error, IndexError) as error:
            raise LabError(f"{path}: block {number} is damaged: {error}") from error
        number += 1


def _interface(order: str, body: bytes) -> _Interface:
    link, snaplen = struct.unpack_from(f"{order}HxxI", body)
    units_per_s, offset_s = 1_000_000, 0
    at = 8
    while at + 4 <= len(body):
        code, size = struct.unpack_from(f"{order}HH", body, at)
        value = body[at + 4 : at + 4 + size]
        if code == _END_OF_OPTIONS:
            break
        if code == _RESOLUTION:
            units_per_s = 1 << (value[0] & 0x7F) if value[0] & 0x80 else 10 ** value[0]
        elif code == _OFFSET:
            (offset_s,) = struct.unpack(f"{order}q", value)
        at += 4 + (size + 3 & ~3)
    return _Interface(link, snaplen, units_per_s, offset_s)


def _packet(order: str, kind: int, body: bytes, interfaces: list[_Interface]) -> Packet:
    if kind == _SIMPLE_PACKET:
        (length,) = struct.unpack_from(f"{order}I", body)
        link, snaplen = interfaces[0][:2]
        return Packet(0, length, body[4 : 4 + min(length, snaplen or length)], link)
    form = "IIIII" if kind == _PACKET else "HHIIII"  # the old one counts drops beside the interface
    fields = struct.unpack_from(f"{order}{form}", body)
    high, low, kept, length = fields[-4:]
    interface = interfaces[fields[0]]
    octets = body[20 : 20 + kept]
    if len(octets) < kept:
        raise IndexError(f"{kept} bytes of a packet in {len(body)}")
    since = (high << 32 | low) * _NS_PER_S // interface.units_per_s
    return Packet(interface.offset_s * _NS_PER_S + since, length, octets, interface.link)
