"""Streams of the packet server: their limits, their statistics, their ends."""

from __future__ import annotations

import json
import logging
import struct
from dataclasses import replace

import pytest

from lab.packet_site import Site, ask, numbered, numbers_in
from lab.packets import ETH0, ETH1, SECOND, Packet, udp
from netobs.kernel.interfaces import Interface
from netobs.pcap.cli.stream_reader import StreamReader
from netobs.pcap.server.client_stream import STATISTICS_NS


def test_begin_and_end_of_a_stream_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    with Site() as site:
        client = site.connect(ask(filter="udp", count=5))
        peer = f"packet client 127.0.0.1:{client.getsockname()[1]}"
        site.until_clients(1)
        site.source.feed(numbered(range(10)))
        assert numbers_in(site.all_of(client)) == list(range(5))
        site.until(lambda: not site.server.admission.connections)
    assert caplog.messages == [
        f'{peer}: gets "udp" as pcap, 262144 octets of a packet',
        f"{peer}: it has the packets that it asked for: 5 packets in {24 + 5 * 116} bytes sent",
    ]


@pytest.mark.parametrize("format_", ["pcap", "pcapng"])
def test_max_bytes_ends_at_a_record(format_: str) -> None:
    with Site(max_bytes=10_000, format=format_) as site:
        client = site.connect()
        site.until_clients(1)
        site.source.feed(numbered(range(200)))
        stream = site.all_of(client)
        assert 10_000 - 160 < len(stream) <= 10_000
        if format_ == "pcap":
            assert numbers_in(stream) == list(range((10_000 - 24) // 116))
        else:
            assert stream[-112:-108] == b"\5\0\0\0"  # its last words are statistics
        assert site.server.total.queue_full == 0


def test_duration() -> None:
    with Site(max_duration_ns=SECOND // 5) as site:
        begin = [site.connect(ask(duration="100ms")), site.connect(ask(duration="1h")), site.connect()]
        for client in begin:
            assert numbers_in(site.all_of(client)) == []


def test_max_rate_drops_and_counts() -> None:
    with Site(max_rate_bytes=100_000) as site:
        client = site.connect()
        site.until_clients(1)
        site.source.feed(numbered(range(5000)))
        site.until(lambda: site.server.total.sent > 0)
        counts = site.server.total
        assert counts.sent + counts.beyond_rate == 5000
        assert 100_000 - 24 <= counts.sent * 116 < 100_000 + 116
        site.stop()
        assert numbers_in(site.all_of(client)) == list(range(counts.sent))


def test_statistics_tell_what_was_dropped_and_lost() -> None:
    with Site(format="pcapng", max_rate_bytes=100_000) as site:
        client = site.connect()
        site.until_clients(1)
        site.source.feed(numbered(range(5000)))
        site.source.lost[0] = {ETH0.index: 7, ETH1.index: 3}  # of eth1, all were lost
        site.until(lambda: site.server.total.sent > 0)
        counts = site.server.total
        assert counts.lost == 10
        site.stop()
        stream = site.all_of(client)
    eth1, first, second = stream.index(b"eth1"), *(stream[-112 * number :][:112] for number in (2, 1))
    assert eth1 > 0

    def numbers(block: bytes) -> list[int]:
        return [struct.unpack_from("<Q", block, 20 + 24 + 12 * place + 4)[0] for place in range(5)]

    missing = counts.beyond_rate + 7
    assert numbers(first) == [5000 + 7, missing, 5000 + 7, 7, counts.sent]
    assert numbers(second) == [3, 3, 3, 3, 0]
    reader = StreamReader()
    reader.feed(stream)
    assert (reader.packets, reader.lost) == (counts.sent, missing + 3)


def test_a_stream_ends_with_the_interface_that_it_is_of(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with Site(interfaces=()) as site:
        site.source.could_be_captured = [ETH0, ETH1]  # attached to one after the other, when there is a client
        one, every = site.connect(ask(interface="eth1")), site.connect(b"\n")
        site.until_clients(2)
        site.until(lambda: site.source.captured == [ETH0, ETH1], "both are attached to")
        site.skip(SECOND)
        site.loop.run_once(0)
        assert len(site.server.clients) == 2
        site.source.captured = [ETH0, replace(ETH1, index=77)]  # deleted, and made again
        assert numbers_in(site.all_of(one)) == []
        assert len(site.server.clients) == 1
        site.stop()
        site.all_of(every)
    assert "its interface is not captured any more: 0 packets in 24 bytes sent" in caplog.text


def test_a_new_interface_in_the_middle_reaches_all_streams() -> None:
    with Site(format="pcapng") as site:
        first = site.connect()
        site.until_clients(1)
        site.source.feed([Packet(udp(60))])
        site.until(lambda: site.server.total.sent == 1)
        second = site.connect()
        site.until_clients(2)
        site.source.captured.append(Interface(30, "tap30", 1))
        site.source.feed([Packet(udp(60), ifindex=30), Packet(udp(60))])
        site.until(lambda: site.server.total.sent == 5)
        site.stop()
        streams = [site.all_of(client) for client in (first, second)]
    assert [stream.count(b"tap30") for stream in streams] == [1, 1]
    assert streams[1].count(b"eth0") == 1


def test_a_stream_tells_of_the_interfaces_that_it_has_packets_of() -> None:
    with Site(format="pcapng") as site:
        first = site.connect()
        site.until_clients(1)
        for index in range(100, 400):
            site.source.captured[1:] = [Interface(index, f"tap{index}", 1)]
            site.source.feed([Packet(udp(60), ifindex=index)])
            site.until(lambda: site.source.waiting == 0)
        second = site.connect()
        site.until_clients(2)
        site.source.feed([Packet(udp(60))])
        site.until(lambda: site.server.total.sent == 302)
        assert len(site.source.selected) == 1
        site.stop()
        assert b"tap101" in site.all_of(first)
        assert b"tap" not in site.all_of(second)


@pytest.mark.parametrize(
    ("request_line", "interfaces"),
    [(b"\n", {b"eth0", b"eth1"}), (b'{"interface": "eth1"}\n', {b"eth1"}), (b'{"interface": "wg0"}\n', {b"wg0"})],
)
@pytest.mark.parametrize("kind", ["live", "recorded"])
def test_a_stream_without_packets_names_what_was_captured(
    request_line: bytes, interfaces: set[bytes], kind: str
) -> None:
    """Of one link type, as libpcap reads no stream of several."""
    if kind == "recorded":
        request_line = json.dumps({**json.loads(request_line.strip() or b"{}"), "recorded": True}).encode() + b"\n"
    with Site(format="pcapng", recorder_ns=SECOND) as site:
        client = site.connect(request_line)
        if kind == "live":
            site.until_clients(1)
            site.stop()
        stream = site.all_of(client)
    assert {name for name in (b"eth0", b"eth1", b"wg0") if name in stream} == interfaces


def test_end_with_unread_bytes_is_no_reset() -> None:
    with Site() as site:
        client = site.connect(b"\n" + b"x" * 1000)
        site.until_clients(1)
        client.send(b"y" * 10_000)
        site.source.feed(numbered(range(1000)))
        site.until(lambda: site.server.total.sent == 1000)
        client.send(b"z" * 10_000)
        site.stop()
        client.send(b"z" * 10_000)
        assert numbers_in(site.all_of(client)) == list(range(1000))
        site.until(lambda: not site.server.admission.connections)


def test_statistics_come_at_intervals_too() -> None:
    with Site(format="pcapng") as site:
        client = site.connect()
        site.until_clients(1)
        site.source.feed(numbered(range(3)))
        site.until(lambda: site.server.total.sent == 3)
        before = site.server.total.bytes
        site.skip(STATISTICS_NS)
        site.until(lambda: site.server.total.bytes == before + 112, "a block of statistics")
        site.source.feed(numbered(range(3)))
        site.until(lambda: site.server.total.sent == 6)
        site.stop()
        first, second = (each[:104] for each in site.all_of(client).split(b"\5\0\0\0\x70\0\0\0")[1:])
    assert [struct.unpack_from("<Q", block, 12 + 6 * 12 + 4)[0] for block in (first, second)] == [3, 6]


def test_many_streams_are_not_all_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with Site() as site:
        for _ in range(200):
            client = site.connect(ask(count=1))
            site.until_clients(1)
            site.source.feed(numbered(range(1)))
            assert numbers_in(site.all_of(client)) == [0]
        assert len(caplog.messages) == 2 * 64
        assert "136 streams without a line in the log" in site.account()
