"""The server of requests: real sockets, a real loop, clients that misbehave."""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from netobs.base import serving
from netobs.base.clock import NS_PER_S
from netobs.base.loop import EventLoop
from netobs.base.serving import Connection, Limits, Server, Service

LIMITS = Limits(connections=3, request_bytes=64, answer_bytes=1 << 20, idle_ns=5 * NS_PER_S)
LARGE = b"x" * (1 << 20)


class Served:
    """A server in a loop whose clock is moved by hand. "large" gets a megabyte, "later" waits, "slow" takes
    a second; others get their echo."""

    def __init__(self, path: str) -> None:
        self.now_ns = 1
        self.loop = EventLoop(lambda: self.now_ns)
        self.asked: list[bytes] = []
        self.held: list[Connection] = []
        self.path = path
        listening = socket.socket(socket.AF_UNIX)
        listening.bind(path)
        listening.listen(1024)
        service = Service("test", lambda data: data.find(b"\n") + 1, self.answer, b"busy\n", b"too long\n")
        self.server = Server(self.loop, [listening], service, LIMITS)
        self.clients: list[socket.socket] = []

    def answer(self, connection: Connection, request: bytes, now_ns: int) -> None:
        self.asked.append(request)
        if request == b"slow\n":
            self.now_ns += NS_PER_S
        if request == b"later\n":
            self.held.append(connection)
        else:
            connection.answer(LARGE if request == b"large\n" else request, now_ns)

    def client(self, said: bytes = b"") -> socket.socket:
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(self.path)
        sock.setblocking(False)
        self.clients.append(sock)
        if said:
            sock.send(said)
        return sock

    def run(self, rounds: int = 8) -> None:
        """Rounds of the loop; the clock is moved a little, so that no answer has to wait for its turn."""
        for _ in range(rounds):
            self.now_ns += NS_PER_S // 100
            self.loop.run_once(0)

    def close(self) -> None:
        self.server.close()
        for sock in self.clients:
            sock.close()
        self.loop.close()


def has_ended(client: socket.socket) -> bool:
    """Whether its connection is closed, with a reset where the server did not read all."""
    try:
        return client.recv(100) == b""
    except ConnectionResetError:
        return True


def received(client: socket.socket) -> bytes:
    """What has arrived, if anything."""
    try:
        return client.recv(1 << 20)
    except BlockingIOError:
        return b""


def send_without_end(client: socket.socket) -> None:
    """Raises BlockingIOError when nobody reads that."""
    for _ in range(10_000):
        client.send(b"large\n" * 10)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    made = Served(str(tmp_path / "socket"))
    yield made
    made.close()


def test_requests_are_answered_in_their_order(served: Served) -> None:
    client = served.client(b"one\ntwo\nthr")
    served.run()
    assert client.recv(100) == b"one\ntwo\n"
    client.send(b"ee\n")
    served.run()
    assert client.recv(100) == b"three\n"
    assert served.asked == [b"one\n", b"two\n", b"three\n"]


def test_a_round_answers_one_request(served: Served) -> None:
    for _ in range(3):
        served.client(b"ask\n")
    while not served.asked:
        served.loop.run_once(0)
    served.run(1)
    assert len(served.asked) == 2
    served.run()
    assert len(served.asked) == 3


@pytest.mark.parametrize("said", [[b"slow\nslow\n"], [b"slow\n"] * 2], ids=["one client", "two"])
def test_requests_take_half_of_the_time(served: Served, said: list[bytes]) -> None:
    for each in said:
        served.client(each)
    served.run()
    assert len(served.asked) == 1
    served.now_ns += NS_PER_S // 2
    served.run()
    assert len(served.asked) == 1
    served.now_ns += NS_PER_S // 2
    served.run()
    assert len(served.asked) == 2


def test_a_client_that_has_no_place_is_refused(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(3):
        served.client()
    others = [served.client() for _ in range(1000)]
    with caplog.at_level(logging.WARNING, "netobs"):
        served.run(1000 // serving.ACCEPTS + 1)
    assert {each.recv(100) for each in others} == {b"busy\n"}
    assert {each.recv(100) for each in others} == {b""}
    assert len(served.server.connections) == 3
    assert [record.getMessage() for record in caplog.records] == [
        "test: a client is refused: 3 places are taken; 1 refused so far"
    ]


def test_a_round_accepts_a_bounded_number(served: Served) -> None:
    for _ in range(100):
        served.client()
    served.run(1)
    assert sum(received(each) == b"busy\n" for each in served.clients) == serving.ACCEPTS - 3


def test_a_silent_client_gives_way(served: Served) -> None:
    silent = [served.client() for _ in range(3)]
    served.run(1)
    served.now_ns += serving.SWEEP_NS
    silent[0].send(b"one\n")
    served.run()
    late = served.client(b"late\n")
    served.run()
    assert late.recv(10) == b"late\n"
    assert silent[1].recv(10) == b""
    assert silent[0].recv(10) == b"one\n"


def test_a_silent_client_is_closed_in_the_end(served: Served) -> None:
    silent, asking = served.client(), served.client(b"later\n")
    served.run()
    served.now_ns += LIMITS.idle_ns
    served.run()
    assert silent.recv(10) == b""
    served.held[0].answer(b"at last\n", served.now_ns)
    assert asking.recv(10) == b"at last\n"


def test_a_request_that_is_too_long(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "netobs"):
        for said in (b"x" * 64, b"x" * 100 + b"\n", b"x" * 1000):
            client = served.client(said)
            served.run()
            assert client.recv(100) == b"too long\n"
            assert has_ended(client)
    assert len(caplog.records) == 1
    assert served.asked == []


def test_a_request_in_pieces(served: Served) -> None:
    client = served.client()
    for byte in b"x" * 62 + b"\n":
        client.send(bytes([byte]))
        served.run(1)
    served.run()
    assert client.recv(100) == b"x" * 62 + b"\n"


def test_a_client_that_does_not_read_is_not_read(served: Served) -> None:
    """What it asks meanwhile stays in its own socket; in the end it is closed."""
    client = served.client(b"large\n")
    served.run()
    with pytest.raises(BlockingIOError):
        send_without_end(client)
    served.run()
    assert len(served.asked) == 1
    served.now_ns += LIMITS.idle_ns
    served.run()
    assert not served.server.connections


def test_a_large_answer_arrives_in_parts(served: Served) -> None:
    client = served.client(b"large\nsmall\n")
    arrived = bytearray()
    while len(arrived) < len(LARGE) + 6:
        served.run(1)
        arrived += received(client)
    assert bytes(arrived) == LARGE + b"small\n"


def test_an_answer_that_is_too_large(served: Served) -> None:
    served.client(b"later\n")
    served.run()
    with pytest.raises(ValueError, match="an answer of"):
        served.held[0].answer(LARGE + b"x", served.now_ns)


def test_a_client_that_sends_no_more_gets_its_answers(served: Served) -> None:
    client = served.client(b"one\ntwo\nhalf")
    client.shutdown(socket.SHUT_WR)
    served.run()
    assert client.recv(100) == b"one\ntwo\n"
    assert client.recv(100) == b""
    assert not served.server.connections


def test_a_client_that_leaves_while_it_waits(served: Served) -> None:
    client = served.client(b"later\n")
    served.run()
    client.close()
    served.run()
    served.held[0].answer(b"nobody\n", served.now_ns)
    assert not served.server.connections
    served.held[0].answer(b"nobody\n", served.now_ns)


def test_a_connection_is_handed_over(served: Served) -> None:
    client = served.client(b"later\nrest")
    served.run()
    sock, rest = served.held[0].hand_over()
    assert rest == b"rest"
    assert not served.server.connections
    sock.send(b"from another owner")
    assert client.recv(100) == b"from another owner"
    sock.close()


def test_without_clients_nothing_runs(served: Served) -> None:
    served.client(b"one\n").close()
    served.run()
    served.now_ns += 10 * NS_PER_S
    served.run()
    assert not served.loop._timers
