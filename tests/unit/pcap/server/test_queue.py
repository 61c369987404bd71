"""Slow clients: bounded memory, whole records, and nobody else is disturbed."""

from __future__ import annotations

import socket
import struct
import sys
from typing import Any

import pytest

from lab.packet_site import Site, numbered, numbers_in
from lab.packets import SECOND, Packet, udp
from netobs.kernel.interfaces import Interface
from netobs.pcap.server.client_stream import STATISTICS_NS
from netobs.pcap.server.outbox import Outbox

KiB, MiB = 1 << 10, 1 << 20


def received(client: socket.socket) -> bytes:
    data = bytearray()
    try:
        while part := client.recv(1 << 20):
            data += part
    except BlockingIOError:
        pass
    return bytes(data)


@pytest.mark.parametrize("queue_max_bytes", [256 * KiB, 2 * MiB])
@pytest.mark.parametrize("size", [100, 1500, 9000])
def test_a_slow_client_loses_its_own_packets_only(queue_max_bytes: int, size: int) -> None:
    with Site(queue_max_bytes=queue_max_bytes) as site:
        slow, fast = site.connect(receive_buffer=8192), site.connect(b"udp\n")
        site.until_clients(2)
        got, total = bytearray(), 12 * MiB // size
        for begin in range(0, total, 400):
            site.source.feed(numbered(range(begin, min(total, begin + 400)), size, filters=3))
            site.until(lambda: not site.source.waiting)
            got += received(fast)
        site.until(lambda: site.server.clients[1].counts.sent == total)
        stopped, quick = site.server.clients
        assert quick.counts.queue_full == 0
        assert stopped.counts.queue_full > 0
        assert stopped.counts.sent + stopped.counts.waiting + stopped.counts.queue_full == total
        assert stopped.connection.outbox.held_bytes <= stopped.connection.outbox.most_held_bytes <= queue_max_bytes
        got += received(fast)
        site.stop()
        rest = site.all_of(slow)
        assert numbers_in(bytes(got) + site.all_of(fast)) == list(range(total))
        numbers = numbers_in(rest)  # whole records, in order
        assert numbers == sorted(set(numbers))
        assert len(numbers) == stopped.counts.sent + stopped.counts.waiting


def send(sock: socket.socket, data: memoryview) -> int:
    try:
        return sock.send(data)
    except BlockingIOError:
        return 0


def test_what_is_counted_is_what_is_held() -> None:
    """The bytes objects that wait, by their own sizes: a part that is sent to its half is held wholly."""
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()):
        accepted, _ = listener.accept()
        accepted.setblocking(False)
        outbox = Outbox(64 * MiB)
        for _ in range(20):
            outbox.put(bytes(1 * MiB), 7)
        outbox.send(lambda data: send(accepted, data))
        parts = [data for data, _, _ in outbox._parts]
        assert 0 < len(parts) < 20
        assert 0 <= outbox.held_bytes - sum(map(sys.getsizeof, parts)) <= 200 * len(parts)
        assert outbox.counts.waiting == 7 * len(parts)
        assert outbox.counts.sent == 7 * (20 - len(parts))
        accepted.close()


def test_a_packet_longer_than_the_queue_passes_if_the_socket_takes_it() -> None:
    with Site(queue_max_bytes=256 * KiB) as site:
        client = site.connect()
        site.until_clients(1)
        for number in range(5):
            site.source.feed([Packet(udp(200_000, number)), Packet(udp(60, number))])
            site.until(lambda: not site.source.waiting)
        site.until(lambda: site.server.total.waiting == 0)
        assert site.server.total.sent == 10
        site.stop()
        assert len(numbers_in(site.all_of(client))) == 10


def test_statistics_do_not_fill_the_queue_of_a_client_that_does_not_read() -> None:
    with Site(format="pcapng", queue_max_bytes=256 * KiB) as site:
        client = site.connect(receive_buffer=8192)
        site.until_clients(1)
        begin = 0
        while not site.server.total.queue_full:
            site.source.feed(numbered(range(begin, begin + 400), 1500))
            begin += 400
            site.until(lambda: not site.source.waiting)
        held = site.server.clients[0].connection.outbox.held_bytes
        site.skip(STATISTICS_NS)
        site.loop.run_once(0)
        site.loop.run_once(0)
        assert site.server.clients[0].connection.outbox.held_bytes == held
        client.close()


def test_interfaces_without_end_end_the_stream_of_a_client_that_does_not_read() -> None:
    with Site(format="pcapng", queue_max_bytes=256 * KiB) as site:
        site.connect(receive_buffer=8192)
        site.until_clients(1)
        index = 100
        while site.server.clients:
            site.source.captured[1:] = [
                Interface(number, f"tap{number}", 1, alias="a" * 200) for number in range(index, index + 400)
            ]
            site.source.feed([Packet(udp(1500), ifindex=number) for number in range(index, index + 400)])
            index += 400
            site.until(lambda: not site.source.waiting)
            assert all(client.connection.outbox.held_bytes <= 3 * 256 * KiB for client in site.server.clients)
        assert site.server.ended.queue_full > 0


def test_a_client_that_reads_again_goes_on() -> None:
    with Site(queue_max_bytes=256 * KiB) as site:
        client = site.connect(receive_buffer=8192)
        site.until_clients(1)
        begin = 0
        while not site.server.total.queue_full:
            site.source.feed(numbered(range(begin, begin + 400), 1500))
            begin += 400
            site.until(lambda: not site.source.waiting)
        got = bytearray()

        def caught_up() -> bool:
            got.extend(received(client))
            return site.server.total.waiting == 0

        site.until(caught_up)
        dropped = site.server.total.queue_full
        site.source.feed(numbered(range(1_000_000, 1_000_010)))
        site.until(caught_up)
        site.stop()
        numbers = numbers_in(bytes(got) + site.all_of(client))
        assert site.server.total.queue_full == dropped
        assert len(numbers) == begin - dropped + 10
        assert numbers[-10:] == list(range(1_000_000, 1_000_010))


def test_the_end_does_not_wait_for_ever() -> None:
    with Site() as site:
        client = site.connect(receive_buffer=8192)
        site.until_clients(1)
        for begin in range(0, 8000, 400):
            site.source.feed(numbered(range(begin, begin + 400), 1500))
        site.until(lambda: not site.source.waiting)
        waiting = site.server.total.waiting
        assert waiting > 0
        site.stop()
        site.skip(2 * SECOND)
        site.until(lambda: not site.server.admission.connections)
        total = site.server.total
        # The client's kernel may have made room for another packet meanwhile.
        assert 0 < total.not_sent <= waiting
        assert total.sent + total.not_sent == 8000
        client.close()


def test_a_reset_is_noticed_at_once() -> None:
    with Site() as site:
        client = site.connect()
        site.until_clients(1)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
        site.until_clients(0)


@pytest.mark.parametrize("limits", [{}, {"max_rate_bytes": 100 * KiB}])
def test_what_a_connection_that_breaks_had_to_get_is_all_counted(limits: dict[str, Any]) -> None:
    with Site(queue_max_bytes=256 * KiB, **limits) as site:
        client = site.connect(b"udp\n", receive_buffer=8192)
        site.until_clients(1)
        site.source.feed(numbered(range(5000), 1000))  # more than the socket and the queue take
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()  # a reset, which the first write of the batch notices: it is read before the socket is
        site.stop()
        site.until_clients(0)
        counts = site.server.total
        assert counts.sent + counts.not_sent + counts.queue_full + counts.beyond_rate == 5000
