from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Iterator

import pytest

from netobs.base.loop import EventLoop
from netobs.live.client import ANSWER_EVERY_NS, REQUEST_BYTES
from netobs.live.flows import Mark
from netobs.live.looks import MOST_CLIENTS, Looks


@pytest.fixture
def loop() -> Iterator[EventLoop]:
    with EventLoop(lambda: 0) as made:
        yield made


@pytest.fixture
def looks(loop: EventLoop) -> Iterator[Looks]:
    made = Looks(loop)
    yield made
    for client in [*made.clients]:
        client.close()


def joined(looks: Looks, **query: object) -> socket.socket:
    """The other end of a new client."""
    ours, theirs = socket.socketpair()
    looks.add(theirs, dict(query), 0)
    ours.settimeout(10)
    return ours


def test_a_client_too_many_is_told_even_if_it_has_gone(looks: Looks) -> None:
    with contextlib.ExitStack() as clients:
        for _ in range(MOST_CLIENTS):
            clients.enter_context(joined(looks))
        with joined(looks) as refused:
            assert "end one" in json.loads(refused.recv(4096))["error"]
            assert refused.recv(1) == b""
        ours, theirs = socket.socketpair()
        ours.close()
        looks.add(theirs, {}, 0)
        assert len(looks.clients) == MOST_CLIENTS
        assert theirs.fileno() == -1


def test_the_end_of_the_last_client_is_noticed(loop: EventLoop, looks: Looks) -> None:
    idle: list[int] = []
    looks.on_idle = lambda: idle.append(len(looks.clients))
    first, second = joined(looks), joined(looks)
    first.close()
    loop.run_once(0)
    assert (len(looks.clients), idle) == (1, [])
    second.close()
    loop.run_once(0)
    assert idle == [0]


@pytest.mark.parametrize("garbage", [b"x\n", b"[1]\n", b"[" * 2000 + b"\n"])
def test_garbage_is_answered(loop: EventLoop, looks: Looks, garbage: bytes) -> None:
    with joined(looks) as client:
        client.sendall(garbage)
        loop.run_once(0)
        assert "expected an object" in json.loads(client.recv(4096))["error"]
        assert len(looks.clients) == 1


def test_who_asks_fast_is_answered_in_a_bounded_rhythm() -> None:
    now_ns = [0]
    with EventLoop(lambda: now_ns[0]) as loop:
        looks = Looks(loop)
        with joined(looks) as client:
            looks.clients[0].mark = Mark(looks.flows, 0)
            for number in range(40):
                client.sendall(json.dumps({"rows": 1 + number}).encode() + b"\n")
                loop.run_once(0)
                now_ns[0] += ANSWER_EVERY_NS // 4
            answers = client.recv(1 << 20).splitlines()
            assert len(answers) == 40 // 4
            now_ns[0] += ANSWER_EVERY_NS
            loop.run_once(0)
            assert json.loads(client.recv(1 << 20))["rows"] == []  # the last question has its answer, too
        loop.run_once(0)
        assert not looks.clients


def test_a_request_without_an_end_ends_the_connection(loop: EventLoop, looks: Looks) -> None:
    with joined(looks) as client:
        client.sendall(b"x" * (REQUEST_BYTES + 1))
        loop.run_once(0)
        loop.run_once(0)
        assert not looks.clients


def test_a_wrong_query_keeps_the_former_one(loop: EventLoop, looks: Looks) -> None:
    with joined(looks, by=["src"]) as client:
        client.sendall(b'{"by": ["nothing"]}\n')
        loop.run_once(0)
        assert not json.loads(client.recv(4096))["ok"]
        assert looks.clients[0].query.by == ("src",)
        client.sendall(b'{"by": ["dst"], "rows": 3}\n{"sort": "flows"}\n')
        loop.run_once(0)
        query = looks.clients[0].query
        assert (query.by, query.rows, query.sort) == (("dst",), 3, "flows")
