"""Reading a stream of packets in pieces of any size."""

from __future__ import annotations

import struct

import pytest

from netobs.base.errors import CaptureError
from netobs.pcap.cli.stream_reader import StreamReader

PCAP_HEADER = struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 262144, 1)


def record(octets: bytes) -> bytes:
    return struct.pack("<IIII", 1, 2, len(octets), 1500) + octets


def block(kind: int, body: bytes) -> bytes:
    body += bytes(-len(body) % 4)
    length = len(body) + 12
    return struct.pack("<II", kind, length) + body + struct.pack("<I", length)


def statistics(interface: int, **counts: int) -> bytes:
    codes = {"received": 4, "dropped": 5, "accepted": 6, "os_dropped": 7, "delivered": 8}
    options = b"".join(struct.pack("<HHQ", codes[name], 8, count) for name, count in counts.items())
    return block(5, struct.pack("<III", interface, 0, 0) + options + struct.pack("<HH", 0, 0))


PCAP = PCAP_HEADER + b"".join(record(bytes(size)) for size in (60, 0, 1514, 9014))
PCAPNG = b"".join(
    [
        block(0x0A0D0D0A, struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1)),
        block(1, struct.pack("<HHI", 1, 0, 262144)),
        *(block(6, struct.pack("<IIIII", 0, 1, 2, size, size) + bytes(size)) for size in (60, 61, 1514)),
        statistics(0, received=10, dropped=3, os_dropped=4),
        statistics(1, dropped=1),
        block(6, struct.pack("<IIIII", 1, 1, 2, 0, 64)),
        statistics(0, received=11, dropped=5, os_dropped=4, delivered=2),
    ]
)


@pytest.mark.parametrize("stream", [PCAP, PCAPNG], ids=["pcap", "pcapng"])
@pytest.mark.parametrize("size", [1, 7, 100, 1 << 20])
def test_whole_records_come_out_whatever_the_pieces(stream: bytes, size: int) -> None:
    reader, out = StreamReader(), b""
    for at in range(0, len(stream), size):
        whole = reader.feed(stream[at : at + size])
        out += whole
        assert reader.bytes == len(out)
    assert out == stream
    assert reader.packets == 4
    assert reader.is_whole


def test_what_is_not_complete_is_kept() -> None:
    reader = StreamReader()
    assert reader.feed(PCAP[:-1]) == PCAP[: -16 - 9014]
    assert not reader.is_whole
    assert reader.packets == 3


def test_losses_are_those_of_the_last_statistics_of_each_interface() -> None:
    reader = StreamReader()
    reader.feed(PCAPNG)
    assert reader.lost == 5 + 1


def test_classic_pcap_tells_no_losses() -> None:
    reader = StreamReader()
    reader.feed(PCAP)
    assert reader.lost is None


@pytest.mark.parametrize("pieces", [[b"netobs: no more clients\n"], [b"net", b"obs: no more", b" clients\nX"]])
def test_a_refusal_is_repeated(pieces: list[bytes]) -> None:
    reader = StreamReader()
    *before, last = pieces
    assert [reader.feed(piece) for piece in before] == [b""] * len(before)
    with pytest.raises(CaptureError, match=r"^no more clients$"):
        reader.feed(last)


def test_something_else_is_refused() -> None:
    with pytest.raises(CaptureError, match="not a stream of packets; is it the port of a netobs daemon"):
        StreamReader().feed(b"SSH-2.0-OpenSSH_9.2\r\n")


def test_a_record_of_absurd_length_is_refused() -> None:
    for stream in (PCAP_HEADER + struct.pack("<IIII", 0, 0, 1 << 30, 60), block(0x0A0D0D0A, b"") + b"\6" + bytes(15)):
        with pytest.raises(CaptureError, match="damaged"):
            StreamReader().feed(stream)
