"""The flight recorder by way of the server: what is kept goes to who asks for it."""

from __future__ import annotations

import logging
import struct

import pytest

from lab.packet_site import Site, ask, numbered, numbers_in
from lab.packets import ETH0, ETH1, SECOND, Packet, udp
from netobs.pcap.formats.stream import MAGIC_NUMBERS

MiB = 1 << 20


def recorded(**keys: object) -> bytes:
    return ask(recorded=True, **keys)


def now_numbered(site: Site, begin: int, count: int, size: int = 100, **more: int) -> list[Packet]:
    """Packets of this moment: the recorder keeps no old ones."""
    return [Packet(udp(size, number), site.now_ns(), **more) for number in range(begin, begin + count)]


def fill(site: Site, packets: int, size: int = 100) -> None:
    for begin in range(0, packets, 400):
        site.source.feed(now_numbered(site, begin, min(400, packets - begin), size))
    site.until(lambda: not site.source.waiting)


def recorded_packets(site: Site) -> int:
    recorder = site.server.recorder
    assert recorder is not None
    return recorder.packets


def test_what_is_kept_is_sent_and_the_stream_ends(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="netobs.pcap")
    with Site(recorder_ns=60 * SECOND) as site:
        assert len(site.source.selected) == 1
        fill(site, 1000)
        client = site.connect(recorded())
        assert numbers_in(site.all_of(client)) == list(range(1000))
        assert numbers_in(site.all_of(site.connect(recorded(count=10)))) == list(range(10))
        assert recorded_packets(site) == 1000
        assert 'gets the recording of "tcp,80" as pcap' in caplog.messages[0]
        assert "the recording is complete: 1000 packets" in caplog.messages[1]
        assert [
            line
            for line in site.account().splitlines()
            if line.startswith("packet recorder: 1000 packets of the last ")
        ]


def test_of_one_interface_in_pcapng_cut() -> None:
    with Site(recorder_ns=60 * SECOND) as site:
        site.source.lost[0] = {ETH0.index: 5, ETH1.index: 2}
        site.source.feed(now_numbered(site, 0, 10) + now_numbered(site, 10, 10, ifindex=3))
        site.until(lambda: recorded_packets(site) == 20)
        stream = site.all_of(site.connect(recorded(interface="eth1", format="pcapng", snaplen=64)))
    assert stream.startswith(MAGIC_NUMBERS["pcapng"])
    assert (stream.count(b"eth1"), stream.count(b"eth0")) == (1, 0)
    statistics = stream[-112:]
    numbers = [struct.unpack_from("<Q", statistics, 44 + 12 * place + 4)[0] for place in range(5)]
    assert numbers == [12, 2, 12, 2, 10]


def test_a_recording_larger_than_the_queue_and_the_sockets_is_not_dropped() -> None:
    with Site(recorder_ns=600 * SECOND, recorder_max_bytes=64 * MiB, queue_max_bytes=256 << 10) as site:
        fill(site, 16_000, 1500)
        client = site.connect(recorded(), receive_buffer=8192)
        site.until_clients(1)
        site.until(lambda: site.server.total.waiting > 0, "nobody reads: something waits")
        assert 0 < site.server.clients[0].connection.outbox.most_held_bytes <= 256 << 10
        fill(site, 400)  # recording goes on meanwhile, and that is not in the stream
        assert numbers_in(site.all_of(client)) == list(range(16_000))
        assert site.server.total.queue_full == 0


def test_one_recording_at_a_time() -> None:
    with Site(recorder_ns=600 * SECOND, recorder_max_bytes=64 * MiB) as site:
        fill(site, 8000, 1500)
        first = site.connect(recorded(), receive_buffer=8192)
        site.until_clients(1)
        answer = site.all_of(site.connect(recorded()))
        assert answer == b"netobs: the recording is being sent to another client; try again later\n"
        first.close()
        site.until_clients(0)
        assert len(numbers_in(site.all_of(site.connect(recorded())))) == 8000


def test_max_rate_slows_a_recording_down() -> None:
    with Site(recorder_ns=60 * SECOND, max_rate_bytes=400_000) as site:
        fill(site, 5000)
        assert numbers_in(site.all_of(site.connect(recorded()))) == list(range(5000))
        assert site.server.total.beyond_rate == 0


def test_max_bytes_cuts_a_recording_at_a_record() -> None:
    with Site(recorder_ns=60 * SECOND, max_bytes=10_000) as site:
        fill(site, 5000)
        assert numbers_in(site.all_of(site.connect(recorded()))) == list(range((10_000 - 24) // 116))


def test_nothing_is_kept_yet() -> None:
    with Site(recorder_ns=60 * SECOND) as site:
        assert numbers_in(site.all_of(site.connect(recorded()))) == []


def test_a_filter_beside_recorded_is_refused() -> None:
    with Site(recorder_ns=60 * SECOND) as site:
        answer = site.all_of(site.connect(recorded(filter="udp")))
        assert answer.startswith(b'netobs: the request has "filter" beside "recorded"; the recorder keeps what packet_')


def test_clients_with_the_same_filter_share_the_selection_of_the_recorder() -> None:
    with Site(recorder_ns=60 * SECOND) as site:
        client = site.connect(b'{"snaplen": 64}\n')
        site.until_clients(1)
        assert len(site.source.selected) == 1
        assert site.source.snaplen == 262_144
        client.close()
        site.source.feed(numbered(range(3)))
        site.until_clients(0)
        assert len(site.source.selected) == 1
