"""The metrics over real connections of the server that daemons use: answers follow each other, garbage ends them."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from netobs.base import http
from netobs.base.loop import EventLoop
from netobs.base.serving import Connection, Limits, Server, Service
from netobs.daemon.metrics import response, understood

GET = b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n"
LIMITS = Limits(connections=2, request_bytes=1024, answer_bytes=1 << 25)
BODY = "x" * (1 << 24)  # more than the buffers of a connection take


class Site:
    """A server of a page, whose loop the test turns."""

    def __init__(self) -> None:
        self.loop, self.pages = EventLoop(), 0
        self._listening = socket.create_server(("127.0.0.1", 0))
        service = Service("metrics", http.cut, self._answer, http.refusal(503, "busy"), http.refusal(431, "too long"))
        self.server = Server(self.loop, [self._listening], service, LIMITS)

    def _answer(self, connection: Connection, data: bytes, now_ns: int) -> None:
        request = understood(data)
        said = request if isinstance(request, bytes) else response(request, self._page)
        connection.answer(said, now_ns, close=isinstance(request, bytes) or not request.keeps)

    def _page(self, openmetrics: bool) -> str:
        self.pages += 1
        return f"page {self.pages} {openmetrics}\n" if self.pages < 10 else BODY

    def client(self, data: bytes = b"") -> socket.socket:
        sock = socket.create_connection(self._listening.getsockname(), 10)
        sock.sendall(data)
        sock.setblocking(False)
        return sock

    def read(self, sock: socket.socket, most: int = 1 << 30) -> bytes:
        """What comes, to the end, or until it is more than ``most`` bytes."""
        found = bytearray()
        while len(found) <= most:
            try:
                part = sock.recv(1 << 16)
            except BlockingIOError:
                self.loop.run_once(20_000_000)
                continue
            if not part:
                break
            found += part
        return bytes(found)


@pytest.fixture
def site() -> Iterator[Site]:
    made = Site()
    with made.loop:
        yield made
        made.server.close()


def test_requests_that_come_together_are_answered_one_after_the_other(site: Site) -> None:
    with site.client(GET + GET + b"GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n") as sock:
        said = site.read(sock)
    assert [line for line in said.split(b"\n") if line.startswith(b"page")] == [b"page 1 False", b"page 2 False",
                                                                               b"page 3 False"]  # fmt: skip
    assert said.count(b"HTTP/1.1 200 OK\r\n") == 3


def test_who_accepts_openmetrics_gets_it(site: Site) -> None:
    accept = b"GET /metrics HTTP/1.0\r\nAccept: application/openmetrics-text\r\n\r\n"
    with site.client(accept) as sock:
        said = site.read(sock)
    assert b"Content-Type: application/openmetrics-text; version=1.0.0; charset=utf-8\r\n" in said
    assert said.endswith(b"page 1 True\n")


def test_garbage_ends_the_connection_and_makes_no_page(site: Site) -> None:
    for data, status in ((b"\x00" * 1024, b"431"), (b"GET / HTTP/9\r\n\r\n", b"400"), (b"a\nb\n\n" + GET, b"400")):
        with site.client(data) as sock:
            said = site.read(sock)
        assert said.startswith(b"HTTP/1.1 " + status)
    assert site.pages == 0


def test_a_client_that_reads_nothing_holds_up_no_other(site: Site) -> None:
    site.pages = 10
    with site.client(GET + GET) as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        while site.pages < 11:
            site.loop.run_once(20_000_000)
        with site.client(GET) as other:
            assert len(site.read(other, len(BODY))) > len(BODY)
        assert site.pages == 12  # the second request of the slow one is not read before it has the first answer
        with site.client(GET) as third:
            assert site.read(third, len(BODY)).startswith(b"HTTP/1.1 200")
