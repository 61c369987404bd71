"""Who connects to the packet server, in good faith or not; what is left when they are gone."""

from __future__ import annotations

import contextlib
import errno
import gc
import logging
import os
import resource
import socket
import struct
import threading
from ipaddress import ip_network

import pytest

from lab.packet_site import Site, descriptors, numbered, numbers_in
from lab.packets import SECOND
from netobs.base.errors import NetobsError
from netobs.pcap.cli.stream_reader import StreamReader
from netobs.pcap.server.admission import MAX_OF_ONE, ROOTS_PLACES
from netobs.pcap.server.client_stream import Client
from netobs.pcap.server.connection import DEAD_PEER_MS, Connection
from netobs.pcap.server.peer import Peer

KiB = 1 << 10
ROOTS = ROOTS_PLACES if os.geteuid() == 0 else 0


@pytest.mark.parametrize("format_", ["pcap", "pcapng"])
def test_a_client_that_closes_its_side_at_once_gets_its_stream(format_: str) -> None:
    with Site(format=format_) as site:
        client = site.connect(None)
        client.shutdown(socket.SHUT_WR)  # nc -N, socat -u
        site.until_clients(1)
        site.source.feed(numbered(range(10)))
        site.until(lambda: site.server.total.sent == 10)
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


@pytest.mark.parametrize("pieces", [(b"end\n",), (b"e", b"nd\n"), (b"the ", b"end\n")], ids=repr)
def test_a_client_that_asks_for_the_end(pieces: tuple[bytes, ...], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with Site(format="pcapng") as site:
        client = site.connect(b"udp\n")
        site.until_clients(1)
        site.source.feed(numbered(range(10)))  # in the rings: not read yet
        for piece in pieces:
            client.send(piece)
            site.loop.run_once(0)
        reader = StreamReader()
        reader.feed(site.all_of(client))
        assert (reader.packets, reader.lost, reader.is_whole) == (10, 0, True)
        site.until_clients(0)
    assert "the client asked for the end: 10 packets in " in caplog.text


def test_a_port_scan_attaches_nothing(caplog: pytest.LogCaptureFixture) -> None:
    with Site() as site:
        for _ in range(300):
            site.connect(None).close()
            site.loop.run_once(0)
        site.until(lambda: site.server.admission.connections_ever == 300 and not site.server.admission.connections)
        assert site.source.selections_ever == 0
        assert site.server.clients_ever == 0
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
        site.until(lambda: site.server.admission.connections_ever == 1001)
        site.source.feed(numbered(range(10), filters=0xFFFFFFFF))  # who is gone is noticed when something is sent
        site.until_clients(1)
        site.until(lambda: len(site.source.streams) == 1, "all sockets are closed")
        site.until(lambda: len(site.source.selected) == 1, "one selection is left")
        site.until(lambda: not any(each.name == "netobs-filter" for each in threading.enumerate()), "filters are done")
        site.loop.run_once(0)
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
        places = 2 + ROOTS
        clients = [site.connect() for _ in range(places)]
        site.until_clients(places)
        assert site.answer(b"\n") == (
            "netobs: 2 clients are connected already, as many as packet_capture.max_clients allows\n"
        )
        assert site.server.admission.refused == {"max_clients": 1}
        clients[0].close()
        site.source.feed(numbered(range(1)))
        site.until_clients(places - 1)
        clients[0] = site.connect()
        site.until_clients(places)
        for client in clients:
            client.close()


def test_connections_that_say_nothing_are_bounded() -> None:
    with Site(max_clients=1) as site:
        keepers = [site.connect() for _ in range(1 + ROOTS)]
        site.until_clients(len(keepers))
        silent = [site.connect(None) for _ in range(100)]
        site.until(lambda: site.server.admission.connections_ever == 100 + len(keepers))
        refused = site.server.admission.refused
        assert refused["undecided"] >= 100 - MAX_OF_ONE - refused.get("max_clients", 0) - len(refused)
        assert len(site.source.streams) <= len(keepers) + 2 * MAX_OF_ONE + 1
        site.until(lambda: len(site.source.streams) == len(keepers), "those who said nothing are gone")
        assert len(site.server.clients) == len(keepers)
        for client in (*silent, *keepers):
            client.close()


def test_allow() -> None:
    with Site(allow=(ip_network("192.0.2.0/24"),)) as site:
        assert site.answer(b"\n") == "netobs: 127.0.0.1 is not in packet_capture.allow\n"
        assert site.server.admission.refused == {"address": 1}
    with Site(allow=(ip_network("127.0.0.0/8"),), host="::") as site:
        client = socket.create_connection(("127.0.0.1", site.port))  # ::ffff:127.0.0.1 for the server
        client.setblocking(False)
        site.until_clients(1)
        assert list(site.source.streams) == [("127.0.0.1", client.getsockname()[1])]
        client.close()


def test_refusals_are_logged_once_in_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    with Site() as site:
        for _ in range(20):
            assert site.answer(b"no such\n").startswith("netobs: filter")
        assert sum("refused" in line for line in caplog.messages) == 1
        assert site.server.admission.refused == {"filter": 20}


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
            site.until(lambda: len(caplog.messages) == 2)
            assert "no client can connect for now: Too many open files; raise LimitNOFILE" in caplog.messages[1]
            site.source.feed(numbered(range(10)))
            site.until(lambda: site.server.total.sent == 10)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            for fd in spare:
                os.close(fd)
        site.skip(SECOND)
        site.until_clients(2)
        for client in (keeper, waiting):
            client.close()


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
        assert {address.host for address in site.server.admission.addresses} <= {"127.0.0.1", "::1"}
        with socket.create_connection(site.server.admission.addresses[0]):
            site.until_clients(1)


def test_who_vanishes_without_a_word_is_noticed_by_the_kernel() -> None:
    with contextlib.ExitStack() as stack:
        site, listener = stack.enter_context(Site()), stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        stack.enter_context(socket.create_connection(listener.getsockname()))
        accepted, _ = listener.accept()
        connection = Connection(accepted, Peer("somebody", 0), site.loop, KiB, None)
        assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == DEAD_PEER_MS
        connection.close()
