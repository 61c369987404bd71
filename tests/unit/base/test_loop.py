"""The event loop: real pipes, real signals, a clock that the test moves."""

from __future__ import annotations

import functools
import os
import signal
import socket
import threading
from collections.abc import Iterator

import pytest

from netobs.base import background
from netobs.base.errors import NetobsError
from netobs.base.loop import EventLoop, Silence


class HandClock:
    def __init__(self) -> None:
        self.now_ns = 1_000

    def __call__(self) -> int:
        return self.now_ns


@pytest.fixture
def hand() -> HandClock:
    return HandClock()


@pytest.fixture
def loop(hand: HandClock) -> Iterator[EventLoop]:
    with EventLoop(hand) as made:
        yield made


def test_timers_run_in_order_of_time_and_not_early(loop: EventLoop, hand: HandClock) -> None:
    calls: list[tuple[str, int]] = []
    loop.call_at(3_000, lambda now: calls.append(("late", now)))
    loop.call_at(2_000, lambda now: calls.append(("early", now)))
    loop.run_once(0)
    assert calls == []
    hand.now_ns = 1_999
    loop.run_once(0)
    assert calls == []
    hand.now_ns = 5_000
    loop.run_once(0)
    assert calls == [("early", 5_000), ("late", 5_000)]
    loop.run_once(0)
    assert len(calls) == 2


def test_cancelled_timer_is_not_called_even_when_due_in_the_same_round(loop: EventLoop, hand: HandClock) -> None:
    calls: list[str] = []
    later = loop.call_at(3_000, lambda _now: calls.append("later"))

    def first(_now: int) -> None:
        calls.append("first")
        later.cancel()

    mine = loop.call_at(2_000, first)
    hand.now_ns = 4_000
    loop.run_once(0)
    assert calls == ["first"]
    mine.cancel()  # already called: no error
    later.cancel()


def test_timer_that_renews_itself_in_the_past_does_not_starve_descriptors(
    loop: EventLoop, pair: tuple[socket.socket, socket.socket]
) -> None:
    calls: list[str] = []

    def again(_now: int) -> None:
        calls.append("timer")
        loop.call_at(0, again)

    loop.call_at(0, again)
    loop.add_reader(pair[0].fileno(), lambda _now: calls.append("read"))
    pair[1].send(b"x")
    loop.run_once()
    loop.run_once()
    assert calls == ["read", "timer", "read", "timer"]


def test_reader_and_writer_of_one_descriptor(loop: EventLoop, pair: tuple[socket.socket, socket.socket]) -> None:
    calls: list[str] = []
    fd = pair[0].fileno()
    loop.add_reader(fd, lambda _now: calls.append("read"))
    loop.add_writer(fd, lambda _now: calls.append("write"))
    loop.run_once(0)
    assert calls == ["write"]
    loop.remove_writer(fd)
    loop.run_once(0)
    assert calls == ["write"]
    pair[1].send(b"x")
    loop.run_once(0)
    assert calls == ["write", "read"]
    loop.remove(fd)
    loop.remove(fd)
    loop.remove_writer(fd)
    loop.run_once(0)
    assert calls == ["write", "read"]


def test_end_of_stream_wakes_the_reader(loop: EventLoop, pair: tuple[socket.socket, socket.socket]) -> None:
    seen: list[bytes] = []
    loop.add_reader(pair[0].fileno(), lambda _now: seen.append(pair[0].recv(10)))
    pair[1].close()
    loop.run_once(0)
    assert seen == [b""]


def test_descriptor_replaced_within_the_round_gets_no_event_of_the_old_one(loop: EventLoop) -> None:
    calls: list[str] = []
    old, peer = socket.socketpair()
    fd = old.fileno()
    fresh, fresh_peer = socket.socketpair()
    with peer, fresh_peer, fresh:

        def replace(_now: int) -> None:
            loop.remove(fd)
            os.dup2(fresh.fileno(), fd)  # the same number, another socket
            loop.add_writer(fd, lambda _now: calls.append("new writer"))

        loop.add_reader(fd, replace)
        loop.add_writer(fd, lambda _now: calls.append("old writer"))
        peer.send(b"x")
        loop.run_once(0)
        assert calls == []
        loop.run_once(0)
        assert calls == ["new writer"]
        loop.remove(fd)
        old.close()


def test_exception_of_a_callback_is_not_swallowed_and_loses_no_other_call(loop: EventLoop) -> None:
    calls: list[str] = []

    def fail(_now: int) -> None:
        raise RuntimeError("boom")

    loop.call_at(1, fail)
    loop.call_at(2, lambda _now: calls.append("timer"))
    loop.call_from_thread(fail)
    loop.call_from_thread(lambda _now: calls.append("pending"))
    for expected in ([], ["pending"]):
        with pytest.raises(RuntimeError, match="boom"):
            loop.run_once(0)
        assert calls == expected
    loop.run_once(0)
    assert calls == ["pending", "timer"]


def test_another_thread_wakes_a_waiting_loop() -> None:
    with EventLoop() as loop:
        thread = threading.Thread(target=loop.call_from_thread, args=(lambda _now: loop.stop(),))
        thread.start()
        loop.run()
        thread.join()


def test_signal_reaches_the_loop_and_its_handler_is_given_back() -> None:
    before = signal.getsignal(signal.SIGUSR1)
    got: list[int] = []
    with EventLoop() as loop:
        loop.on_signal(signal.SIGUSR1, got.append)
        loop.on_signal(signal.SIGUSR2, lambda _now: loop.stop())
        os.kill(os.getpid(), signal.SIGUSR1)
        loop.run_once(0)
        assert len(got) == 1
        killer = threading.Timer(0.01, os.kill, (os.getpid(), signal.SIGUSR2))
        killer.start()
        loop.run()  # waits for ever unless the signal wakes it
        killer.join()
    assert signal.getsignal(signal.SIGUSR1) == before
    assert signal.set_wakeup_fd(-1) == -1


def test_a_signal_that_waits_for_the_next_round_shows(loop: EventLoop) -> None:
    called: list[int] = []
    loop.on_signal(signal.SIGUSR1, called.append)
    loop.call_from_thread(called.append)
    waits = [loop.has_signal]  # not for what a thread hands over: that keeps nobody from going on
    os.kill(os.getpid(), signal.SIGUSR1)
    waits.append(loop.has_signal)
    loop.run_once(0)
    waits.append(loop.has_signal)
    assert waits == [False, True, False]
    assert len(called) == 2


def test_stop_before_run_counts_and_run_can_be_called_again(loop: EventLoop) -> None:
    loop.stop()
    loop.run()
    loop.call_at(0, lambda _now: loop.stop())
    loop.run()


def test_a_call_from_a_thread_after_close_is_harmless() -> None:
    loop = EventLoop()
    loop.close()
    loop.close()
    loop.call_from_thread(lambda _now: None)
    assert len(loop._pending) == 1


MS = 1_000_000


def busy(hand: HandClock, duration_ns: int, _now: int) -> None:
    """What a callback that takes so long does to the clock."""
    hand.now_ns += duration_ns


def test_the_longest_silence_is_that_of_a_round_and_names_its_slowest_call(loop: EventLoop, hand: HandClock) -> None:
    assert loop.longest_silence == Silence()
    for duration_ms in (3, 5, 4):
        loop.call_at(0, functools.partial(busy, hand, duration_ms * MS))
    loop.run_once(0)
    assert loop.longest_silence == Silence(12 * MS, 5 * MS, "busy")
    loop.call_at(0, functools.partial(busy, hand, 11 * MS))
    loop.run_once(0)
    assert loop.longest_silence == Silence(12 * MS, 5 * MS, "busy")
    assert str(loop.longest_silence) == "12 ms, of which 5 ms in busy"


def test_waiting_is_no_silence_but_being_late_is(loop: EventLoop, hand: HandClock) -> None:
    calls: list[int] = []
    loop.call_at(hand.now_ns + MS, calls.append)
    hand.now_ns += 20 * MS  # before the loop was asked: whoever runs it was busy elsewhere
    loop.run_once(0)
    assert calls == [hand.now_ns]
    assert loop.longest_silence == Silence()
    begin_ns = hand.now_ns
    late = iter((begin_ns, begin_ns + 50 * MS, begin_ns + 51 * MS))
    with EventLoop(lambda: next(late)) as other:  # asked, awake, called
        other.call_at(begin_ns, calls.append)
        other.run_once()
        assert other.longest_silence.duration_ns == 51 * MS
        assert other.longest_silence.slowest == "waiting for the CPU"


def test_each_long_silence_is_told(loop: EventLoop, hand: HandClock) -> None:
    told: list[tuple[str, int]] = []
    loop.on_silence = lambda silence, now_ns: told.append((str(silence), now_ns))
    for duration_ms in (999, 1000, 2000, 1500):
        loop.call_from_thread(functools.partial(busy, hand, duration_ms * MS))
        loop.run_once(0)
    ends = [1_000 + 1999 * MS, 1_000 + 3999 * MS, 1_000 + 5499 * MS]
    assert told == [(f"{ms} ms, of which {ms} ms in busy", end) for ms, end in zip((1000, 2000, 1500), ends)]
    assert loop.longest_silence.duration_ns == 2000 * MS


def until_done(loop: EventLoop, work: object) -> list[object]:
    """What ``work`` gave, beside the loop."""
    got: list[object] = []

    def done(result: object, _now_ns: int) -> None:
        got.append(result)
        loop.stop()

    assert callable(work)
    background.run(loop, "test", work, done)
    assert got == []
    loop.run()
    return got


def test_what_may_block_is_done_beside_the_loop(loop: EventLoop) -> None:
    assert until_done(loop, lambda: threading.current_thread().name) == ["netobs-test"]


def test_a_mistake_is_handed_over_and_a_bug_is_raised_in_the_loop(loop: EventLoop) -> None:
    def mistaken() -> None:
        raise NetobsError("no such file")

    (result,) = until_done(loop, mistaken)
    assert str(result) == "no such file"
    with pytest.raises(ZeroDivisionError):
        until_done(loop, lambda: 1 // 0)
