"""The packet server: requests, streams, limits, ends. Real sockets; the packets are handed in as the tap would."""

from __future__ import annotations

import contextlib
import errno
import gc
import json
import logging
import os
import resource
import socket
import struct
import threading
from collections.abc import Sequence
from ipaddress import ip_network

import pytest

from netobs.capture.interfaces import Interface
from netobs.errors import NetobsError
from netobs.pcap.client import Client
from netobs.pcap.connection import Connection
from netobs.pcap.selection import Filter
from tests.lab.packet_site import Site, any_filter, descriptors, numbered, numbers_in
from tests.lab.packets import ETH0, ETH1, SECOND, WG0, Packet, mixed, udp

MiB = 1 << 20


@pytest.fixture(autouse=True)
def _level(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="netobs.pcap")


def refusal(site: Site, request: bytes) -> str:
    """The line that a client gets for ``request``."""
    return site.all_of(site.connect(request)).decode()


def ask(**keys: object) -> bytes:
    return json.dumps(keys).encode() + b"\n"


def test_a_silent_client_gets_what_is_configured() -> None:
    with Site() as site:
        client = site.connect(None)
        site.until_clients(1)
        assert next(iter(site.source.selected.values())).filter.text == "tcp,80"
        assert site.source.snaplen == 262_144
        site.source.feed(numbered(range(1000)))
        site.until(lambda: site.stats().total.sent == 1000)
        site.stop()
        assert numbers_in(site.all_of(client)) == list(range(1000))


@pytest.mark.parametrize("request_", [b"udp\n", b'{"filter": "udp"}\n', b"udp\r\n"])
def test_a_filter_of_its_own(request_: bytes) -> None:
    with Site() as site:
        site.connect(request_)
        site.until_clients(1)
        assert [selection.filter.text for selection in site.source.selected.values()] == ["udp"]


def test_each_gets_what_it_selects_in_its_own_form() -> None:
    with Site() as site:
        plain = site.connect()
        site.until_clients(1)
        other = site.connect(ask(filter="udp", snaplen=64))
        site.until_clients(2)
        same = site.connect(ask(filter=["tcp,80"]))
        site.until_clients(3)
        assert len(site.source.selected) == 2
        first, second = numbered(range(50)), numbered(range(50, 100), filters=2)
        both = numbered(range(100, 150), filters=3)
        site.source.feed(first + second + both)
        site.until(lambda: site.stats().total.sent == 300)
        site.stop()
        streams = {name: site.all_of(client) for name, client in (("plain", plain), ("other", other), ("same", same))}
    assert numbers_in(streams["plain"]) == [*range(50), *range(100, 150)]
    assert streams["same"] == streams["plain"]
    assert numbers_in(streams["other"]) == list(range(50, 150))
    assert len(streams["other"]) == 24 + 100 * (16 + 64)
    assert streams["other"][16:20] == struct.pack("<I", 64)


def test_the_interface_of_a_request() -> None:
    with Site() as site:
        client = site.connect(ask(interface="wg0"))
        site.until_clients(1)
        assert [selection.ifindex for selection in site.source.selected.values()] == [WG0.index]
        site.stop()
        assert site.all_of(client)[20:24] == struct.pack("<I", 101)  # LINKTYPE_RAW


def test_an_interface_that_is_not_captured_yet() -> None:
    with Site(interfaces=()) as site:
        site.source.could_be_captured = [ETH0, ETH1, WG0]  # nothing is attached as long as nobody is there
        assert refusal(site, ask(interface="eth9")).endswith("captured are: eth0, eth1, wg0\n")
        client = site.connect(ask(interface="wg0"))
        site.until_clients(1)
        site.until(lambda: site.source.captured == [ETH0, ETH1, WG0], "all are attached to, one after the other")
        assert [selection.ifindex for selection in site.source.selected.values()] == [WG0.index]
        site.stop()
        assert site.all_of(client)[20:24] == struct.pack("<I", 101)


def test_the_port_of_the_server_is_told_to_the_tap() -> None:
    with Site() as site:
        assert site.source.own_port == site.port


def test_without_ethernet_anywhere_the_link_type_is_raw() -> None:
    with Site(interfaces=(WG0,)) as site:
        client = site.connect()
        site.until_clients(1)
        site.stop()
        assert site.all_of(client)[20:24] == struct.pack("<I", 101)


def test_packets_of_another_link_type_are_counted() -> None:
    packets = mixed(100, links=(0, 1))
    with Site() as site:
        client = site.connect()
        site.until_clients(1)
        site.source.feed(packets)
        raw = sum(packet.link for packet in packets)
        site.until(lambda: site.stats().total.sent == 100 - raw)
        assert site.stats().total.other_link == raw
        site.stop()
        site.all_of(client)


def test_snaplen_of_the_tap_is_the_largest_that_anybody_wants() -> None:
    with Site(snaplen=1000) as site:
        small = site.connect(ask(snaplen=64))
        site.until_clients(1)
        assert site.source.snaplen == 64
        large = site.connect(ask(snaplen=5000))
        site.until_clients(2)
        assert site.source.snaplen == 1000  # a client may ask for less than what is configured
        large.close()
        site.source.feed(numbered(range(100)))
        site.until_clients(1)
        site.until(lambda: site.source.snaplen == 64)
        small.close()


@pytest.mark.parametrize(
    ("request_", "answer"),
    [
        (b"no such\n", 'netobs: filter "no such": syntax error in filter expression; see pcap-filter(7)\n'),
        (b'{"filtre": "udp"}\n', 'netobs: the request has an unknown key "filtre"; did you mean "filter"?\n'),
        (b'{"interface": "eth00"}\n', None),
        (b'{"interface": "no"}\n', 'netobs: interface "no" is not captured; captured are: eth0, eth1, wg0\n'),
        (b'{"recorded": true}\n', "netobs: nothing is recorded here; set packet_capture.recorder\n"),
        (b"\x16\x03\x01\x02\x00\x01\n", None),
        (b"\x00\x01\x02\xff\n", None),
        (b"x" * 10_000, "netobs: the request has more than 1024 bytes; a shorter filter, or fewer of them\n"),
        (b"x" * 10_000 + b"\n", "netobs: the request has more than 1024 bytes; a shorter filter, or fewer of them\n"),
        (b"tcp,80", None),  # no newline
    ],
)
def test_a_refused_request_gets_one_line(request_: bytes, answer: str | None, caplog: pytest.LogCaptureFixture) -> None:
    with Site() as site:
        other = site.connect()
        site.until_clients(1)
        said = refusal(site, request_)
        assert said.startswith("netobs: ")
        assert said.count("\n") == 1
        assert answer in (None, said)
        assert sum("refused" in line for line in caplog.messages) == 1
        assert sum(site.stats().refused.values()) == 1
        site.source.feed(numbered(range(10)))
        site.until(lambda: site.stats().total.sent == 10)
        site.stop()
        assert numbers_in(site.all_of(other)) == list(range(10))


def test_a_request_may_come_in_pieces_but_not_for_long() -> None:
    with Site() as site:
        client = site.connect(None)
        for piece in (b'{"filter"', b': "udp"', b"}\n"):
            client.send(piece)
            site.loop.run_once(0)
        site.until_clients(1)
        slow, pieces = site.connect(None), iter(range(10_000))
        answer = bytearray()

        def refused() -> bool:  # a byte at a time, as long as anybody listens
            try:
                slow.send(b"x" if next(pieces) < 900 else b"")
                answer.extend(slow.recv(1000))
            except BlockingIOError:
                pass
            return answer.endswith(b"\n")

        site.until(refused)
        assert answer.decode().startswith("netobs: the request did not end within 250 ms; it is one line")
        slow.close()
        client.close()


def test_a_request_that_is_ended_by_the_end_of_the_sender() -> None:
    with Site() as site:
        client = site.connect(None)
        client.send(b"udp")
        client.shutdown(socket.SHUT_WR)
        site.until_clients(1)
        assert [selection.filter.text for selection in site.source.selected.values()] == ["udp"]
        site.source.feed(numbered(range(10)))
        site.until(lambda: site.stats().total.sent == 10)
        site.stop()
        assert numbers_in(site.all_of(client)) == list(range(10))


@pytest.mark.parametrize("format_", ["pcap", "pcapng"])
def test_a_client_that_closes_its_side_at_once_gets_its_stream(format_: str) -> None:
    with Site(format=format_) as site:
        client = site.connect(None)
        client.shutdown(socket.SHUT_WR)  # nc -N, socat -u
        site.until_clients(1)
        site.source.feed(numbered(range(10)))
        site.until(lambda: site.stats().total.sent == 10)
        site.stop()
        stream = site.all_of(client)
        if format_ == "pcap":
            assert numbers_in(stream) == list(range(10))
        else:
            assert stream[:4] == b"\x0a\x0d\x0d\x0a"
            assert stream.count(b"\x0a\x0d\x0d\x0a\x74") + stream.count(b"\x0a\x0d\x0d\x0a") >= 1
            assert stream[8:12] == struct.pack("<I", 0x1A2B3C4D)


def test_a_client_that_went_away_after_closing_its_side() -> None:
    with Site() as site:
        client = site.connect(b"udp\n")
        client.shutdown(socket.SHUT_WR)
        site.until_clients(1)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()  # a reset: nobody reads the server's socket any more, and it is noticed nevertheless
        site.until_clients(0)


def test_a_port_scan_attaches_nothing(caplog: pytest.LogCaptureFixture) -> None:
    with Site() as site:
        for _ in range(300):
            site.connect(None).close()
            site.loop.run_once(0)
        site.until(lambda: site.stats().connections_ever == 300 and site.server.closed)
        assert site.source.selections_ever == 0
        assert site.stats().clients_ever == 0
        assert not site.source.streams
        assert len(caplog.messages) <= 1  # if they were faster than the server: too many without a request


def test_clients_come_and_go_and_leave_nothing(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR, logger="netobs.pcap")  # records that are kept would hold the clients
    with Site() as site:
        keeper = site.connect()
        site.until_clients(1)
        gc.collect()
        before = descriptors(), _instances(Client), _instances(Connection)
        for number in range(1000):
            request = (None, b"\n", b"udp\n", b"no such\n", b'{"format": "pcapng"}\n')[number % 5]
            client = site.connect(request)
            if number % 2:
                site.loop.run_once(1_000_000)
            client.close()
        site.until(lambda: site.stats().connections_ever == 1001)
        site.source.feed(numbered(range(10), filters=0xFFFFFFFF))  # who is gone is noticed when something is sent
        site.until_clients(1)
        site.until(lambda: len(site.source.streams) == 1, "all sockets are closed")
        site.until(lambda: len(site.source.selected) == 1, "one selection is left")
        gc.collect()
        assert (descriptors(), _instances(Client), _instances(Connection)) == before
        site.stop()
        assert numbers_in(site.all_of(keeper)) == list(range(10))


def _instances(kind: type) -> int:
    return sum(type(each) is kind for each in gc.get_objects())


def test_the_last_selection_stays_for_a_moment() -> None:
    with Site() as site:
        for _ in range(20):
            client = site.connect()
            site.until_clients(1)
            client.close()
            site.source.feed(numbered(range(3)))
            site.until_clients(0)
        assert site.source.selections_ever == 1
        assert len(site.source.selected) == 1
        site.skip(SECOND)
        site.until(lambda: not site.source.selected, "nothing is selected when nobody is there")


def test_one_more_than_max_clients() -> None:
    with Site(max_clients=2) as site:
        clients = [site.connect() for _ in range(2)]
        site.until_clients(2)
        assert refusal(site, b"\n") == (
            "netobs: 2 clients are connected already, as many as packet_capture.max_clients allows\n"
        )
        assert site.stats().refused == {"max_clients": 1}
        clients[0].close()
        site.source.feed(numbered(range(1)))
        site.until_clients(1)
        clients[0] = site.connect()
        site.until_clients(2)
        for client in clients:
            client.close()


def test_connections_that_say_nothing_are_bounded() -> None:
    with Site(max_clients=1) as site:
        keeper = site.connect()
        site.until_clients(1)
        silent = [site.connect(None) for _ in range(100)]
        site.until(lambda: site.stats().connections_ever == 101)
        assert site.stats().refused["undecided"] >= 100 - 64 - len(site.stats().refused)
        assert len(site.source.streams) <= 65 + 1
        site.until(lambda: len(site.source.streams) == 1, "those who said nothing are gone")
        assert len(site.stats().clients) == 1
        for client in (*silent, keeper):
            client.close()


def test_allow() -> None:
    with Site(allow=(ip_network("192.0.2.0/24"),)) as site:
        assert refusal(site, b"\n") == "netobs: 127.0.0.1 is not in packet_capture.allow\n"
        assert site.stats().refused == {"address": 1}
    with Site(allow=(ip_network("127.0.0.0/8"),), host="::") as site:
        client = socket.create_connection(("127.0.0.1", site.port))  # ::ffff:127.0.0.1 for the server
        client.setblocking(False)
        site.until_clients(1)
        assert list(site.source.streams) == [("127.0.0.1", client.getsockname()[1])]
        client.close()


def test_refusals_are_logged_once_in_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    with Site() as site:
        for _ in range(20):
            assert refusal(site, b"no such\n").startswith("netobs: filter")
        assert sum("refused" in line for line in caplog.messages) == 1
        assert site.stats().refused == {"filter": 20}


def test_begin_and_end_of_a_stream_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    with Site() as site:
        client = site.connect(ask(filter="udp", count=5))
        peer = f"packet client 127.0.0.1:{client.getsockname()[1]}"
        site.until_clients(1)
        site.source.feed(numbered(range(10)))
        assert numbers_in(site.all_of(client)) == list(range(5))
        site.until(lambda: site.server.closed)
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
        assert site.stats().total.queue_full == 0


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
        site.until(lambda: site.stats().total.sent > 0)
        counts = site.stats().total
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
        site.until(lambda: site.stats().total.sent > 0)
        counts = site.stats().total
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


def test_a_new_interface_in_the_middle_reaches_all_members() -> None:
    with Site(format="pcapng") as site:
        first = site.connect()
        site.until_clients(1)
        site.source.feed([Packet(udp(60))])
        site.until(lambda: site.stats().total.sent == 1)
        second = site.connect()
        site.until_clients(2)
        site.source.captured.append(Interface(30, "tap30", 1))
        site.source.feed([Packet(udp(60), ifindex=30), Packet(udp(60))])
        site.until(lambda: site.stats().total.sent == 5)
        site.stop()
        streams = [site.all_of(client) for client in (first, second)]
    assert [stream.count(b"tap30") for stream in streams] == [1, 1]
    assert streams[1].count(b"eth0") == 1  # told at once, as the first one's stream has it


def test_a_stream_with_many_dead_interfaces_is_not_joined() -> None:
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
        site.until(lambda: site.stats().total.sent == 302)
        assert len(site.source.selected) == 1
        site.stop()
        assert b"tap101" in site.all_of(first)
        assert b"tap" not in site.all_of(second)


def test_end_with_unread_bytes_is_no_reset() -> None:
    with Site() as site:
        client = site.connect(b"\n" + b"x" * 1000)
        site.until_clients(1)
        client.send(b"y" * 10_000)
        site.source.feed(numbered(range(1000)))
        site.until(lambda: site.stats().total.sent == 1000)
        client.send(b"z" * 10_000)
        site.stop()
        client.send(b"z" * 10_000)
        assert numbers_in(site.all_of(client)) == list(range(1000))
        site.until(lambda: site.server.closed)


def test_a_client_that_talks_without_end_is_closed(caplog: pytest.LogCaptureFixture) -> None:
    with Site() as site:
        client = site.connect()

        def closed() -> bool:
            try:
                client.send(b"y" * 10_000)
            except BlockingIOError:
                return False
            except OSError as error:
                return error.errno in (errno.EPIPE, errno.ECONNRESET)
            return False

        site.until(closed)
        site.until_clients(0)
        assert "the client sends more than a request" in caplog.messages[-1]
        client.close()


def test_without_a_descriptor_for_one_more(caplog: pytest.LogCaptureFixture) -> None:
    with Site() as site:
        keeper = site.connect()
        site.until_clients(1)
        waiting = socket.socket()
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))) + 1, hard))
        spare = []
        try:
            with contextlib.suppress(OSError):
                while True:
                    spare.append(os.dup(0))
            waiting.connect(("127.0.0.1", site.port))
            waiting.setblocking(False)
            site.until(lambda: bool(site.server.stats(0)) and len(caplog.messages) == 2)
            assert "no client can connect for now: Too many open files; raise LimitNOFILE" in caplog.messages[1]
            site.source.feed(numbered(range(10)))
            site.until(lambda: site.stats().total.sent == 10)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            for fd in spare:
                os.close(fd)
        site.skip(SECOND)
        site.until_clients(2)
        for client in (keeper, waiting):
            client.close()


def test_a_filter_whose_names_are_not_found_in_time() -> None:
    never = threading.Event()

    def compile_filter(texts: Sequence[str]) -> Filter:
        if "host slow.example" in texts:
            never.wait()
        return any_filter(texts)

    try:
        with Site(compile_filter) as site:
            keeper = site.connect()
            site.until_clients(1)
            slow = site.connect(b"host slow.example\n")
            quick = site.connect(b"udp\n")
            site.until_clients(2)  # the others go on
            site.source.feed(numbered(range(10), filters=3))
            site.until(lambda: site.stats().total.sent == 20)
            site.skip(10 * SECOND)
            answer = site.all_of(slow).decode()
            assert answer.startswith(
                "netobs: the filter was not compiled within 10 s: the name service does not answer"
            )
            many = [site.connect(b"host slow.example\n") for _ in range(5)]
            site.until(lambda: site.stats().connections_ever == 8)
            site.stop()
            assert site.all_of(many[0]).decode() == "netobs: netobs ends\n"
            for client in (keeper, quick, *many[1:]):
                client.close()
            site.until(lambda: site.server.closed)
    finally:
        never.set()


def test_threads_that_hang_are_bounded() -> None:
    never = threading.Event()

    def compile_filter(texts: Sequence[str]) -> Filter:
        if "host slow.example" in texts:
            never.wait()
        return any_filter(texts)

    try:
        with Site(compile_filter, max_clients=20) as site:
            many = [site.connect(b"host slow.example\n") for _ in range(12)]
            site.until(lambda: site.stats().refused.get("filter") == 4)
            hanging = [thread for thread in threading.enumerate() if thread.name == "netobs-filter"]
            assert len(hanging) == 8
            assert all(thread.daemon for thread in hanging)
            for client in many:
                client.close()
    finally:
        never.set()


def test_a_configured_filter_that_cannot_be_compiled() -> None:
    with pytest.raises(NetobsError) as caught, Site(filter=("no such",)):
        pass
    assert str(caught.value).startswith('packet_capture.filter: filter "no such": syntax error')


def test_a_tap_that_has_no_bit_left() -> None:
    with Site(max_clients=31) as site:
        for bit in range(32):
            site.source.selected[bit] = any_filter  # others' selections
        assert refusal(site, b"udp\n") == "netobs: 32 filters are in use already; try again later\n"
        site.source.selected.clear()


def test_where_it_cannot_listen() -> None:
    with Site() as site:
        for config, message, may_pass in (
            ({"port": site.port}, "another program listens there; end it, or set another port", True),
            ({"host": "192.0.2.1", "port": 9990}, "not an address of this host; set one of this host, or 0.0", True),
            ({"host": "no.such.host.invalid", "port": 9990}, "the name has no address: ", True),
        ):
            with pytest.raises(NetobsError) as caught, Site(**config):
                pass
            host = config.get("host", "127.0.0.1")
            assert str(caught.value).startswith(f'packet_capture.listen "{host}:{config["port"]}": {message}')
            assert caught.value.may_pass is may_pass


def test_a_name_with_several_addresses() -> None:
    with Site(host="localhost", port=0) as site:
        assert {address.host for address in site.server.addresses} <= {"127.0.0.1", "::1"}
        with socket.create_connection(site.server.addresses[0]):
            site.until_clients(1)
