"""Works in threads, one at a time."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Callable

import pytest

from netobs.base.background import InTurn
from netobs.base.clock import NS_PER_S
from netobs.base.errors import NetobsError
from netobs.base.loop import EventLoop


class Works:
    """Three works, in a loop whose clock the test moves. ``done``: what has ended; ``begun``: what has begun, when."""

    def __init__(self) -> None:
        self.now_ns = 1
        self.loop = EventLoop(lambda: self.now_ns)
        self.in_turn = InTurn(self.loop, "test")
        self.begun: list[tuple[str, int]] = []
        self.done: list[str] = []
        self.gate = threading.Semaphore(0)

    def ask(self, name: str) -> None:
        def prepare(now_ns: int) -> Callable[[], str]:
            self.begun.append((name, now_ns))

            def work() -> str:
                self.gate.acquire()
                if name == "bad":
                    raise NetobsError("it failed")
                return name

            return work

        self.in_turn.run(prepare, lambda result, _now_ns: self.done.append(str(result)), self.now_ns)

    def finish_one(self) -> None:
        before = len(self.done)
        self.gate.release()
        while len(self.done) == before:
            self.loop.run_once()


@pytest.fixture
def works() -> Iterator[Works]:
    made = Works()
    yield made
    made.loop.close()


def test_the_next_one_waits_as_long_as_the_last_one_took(works: Works) -> None:
    for name in ("one", "bad", "three"):
        works.ask(name)
    assert works.begun == [("one", 1)]
    works.now_ns += 3 * NS_PER_S
    works.finish_one()
    works.loop.run_once(0)
    assert works.done == ["one"]
    assert len(works.begun) == 1
    works.now_ns += 3 * NS_PER_S
    works.loop.run_once(0)
    assert works.begun[1:] == [("bad", 6 * NS_PER_S + 1)]
    works.finish_one()
    assert works.done == ["one", "it failed"]
    while len(works.begun) < 3:
        works.loop.run_once()
    works.finish_one()
    assert works.done[2] == "three"


def test_after_a_rest_it_begins_at_once(works: Works) -> None:
    works.ask("one")
    works.finish_one()
    works.now_ns += NS_PER_S
    works.loop.run_once(0)
    works.ask("two")
    assert works.begun[1] == ("two", works.now_ns)
    works.finish_one()
