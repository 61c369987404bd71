"""A small single-threaded event loop: file descriptors, timers, signals, and results handed in by other threads.

Every callback gets ``now_ns`` (CLOCK_MONOTONIC), read once per round, so that the stages need no clock of their own.
An exception in a callback propagates out of ``run``: the daemon decides, nothing is swallowed. The loop measures its
silences: the times in which a slow callback keeps it from handling events.
"""

from __future__ import annotations

import contextlib
import heapq
import os
import selectors
import signal
from collections import deque
from types import FrameType, TracebackType
from typing import Any, Callable, NamedTuple

from netobs.base import clock

Callback = Callable[[int], None]


LONG_SILENCE_NS = clock.NS_PER_S


class Silence(NamedTuple):
    """A time in which the loop handled no descriptor, timer or signal: from the due time of a round to its end, in ns.

    ``slowest``: the name of the callback that took longest; ``slowest_ns``: how long it took.
    """

    duration_ns: int = 0
    slowest_ns: int = 0
    slowest: str = ""

    def __str__(self) -> str:
        return f"{self.duration_ns / 1e6:.0f} ms, of which {self.slowest_ns / 1e6:.0f} ms in {self.slowest}"


POLL_NS = 20_000_000
"""How often a caller looks at a state that no event tells it of."""


class _Watch:
    """The callbacks of one file descriptor. Its identity tells a descriptor from a later one with the same number."""

    def __init__(self) -> None:
        self.reader: Callback | None = None
        self.writer: Callback | None = None

    def events(self) -> int:
        return (selectors.EVENT_READ if self.reader else 0) | (selectors.EVENT_WRITE if self.writer else 0)


class Timer:
    """A call that is due at ``when_ns``. ``cancel`` may be called at any time, even after the call."""

    def __init__(self, loop: EventLoop, when_ns: int, callback: Callback) -> None:
        self.when_ns = when_ns
        self.callback = callback
        self._loop = loop

    def __lt__(self, other: Timer) -> bool:
        return self.when_ns < other.when_ns

    def cancel(self) -> None:
        self._loop._discard(self)


class EventLoop:
    """``now_ns`` is the clock of the timers (CLOCK_MONOTONIC, ns). A test passes its own and moves it by hand."""

    def __init__(self, now_ns: Callable[[], int] = clock.monotonic_ns) -> None:
        self._now_ns = now_ns
        self._selector = selectors.DefaultSelector()
        self._watches: dict[int, _Watch] = {}
        self._timers: list[Timer] = []  # a heap
        self._due: list[Timer] = []  # taken from the heap in this round, not yet called
        self._raised: deque[Callback] = deque()  # filled by signal handlers
        self._pending: deque[Callback] = deque()  # filled by other threads
        self._signals: dict[int, Any] = {}  # the handlers that ours replaced
        self._wakeup_before: int | None = None
        self._stopping = False
        self.longest_silence = Silence()
        self.on_silence: Callable[[Silence, int], None] = lambda silence, now_ns: None
        """Called with each silence of at least ``LONG_SILENCE_NS``, and ``now_ns``."""
        self._at_ns = 0  # when the previous callback ended
        self._slowest_ns = 0  # of this round
        self._slowest: Callback | None = None
        self._wake_r, self._wake_w = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self.add_reader(self._wake_r, self._drain_wakeups)

    def __enter__(self) -> EventLoop:
        return self

    def __exit__(self, kind: type | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def add_reader(self, fd: int, callback: Callback) -> None:
        """Call ``callback`` while ``fd`` can be read (also at its end or error). Replaces an earlier reader."""
        self._watch(fd).reader = callback
        self._update(fd)

    def add_writer(self, fd: int, callback: Callback) -> None:
        """Call ``callback`` while ``fd`` can be written. Replaces an earlier writer."""
        self._watch(fd).writer = callback
        self._update(fd)

    def remove_writer(self, fd: int) -> None:
        """Stop watching ``fd`` for writing; its reader stays. No error when there is no writer."""
        if fd in self._watches:
            self._watches[fd].writer = None
            self._update(fd)

    def remove(self, fd: int) -> None:
        """Stop watching ``fd``. Call it before closing ``fd``. No error when it is not watched."""
        if self._watches.pop(fd, None) is not None:
            self._selector.unregister(fd)

    def call_at(self, when_ns: int, callback: Callback) -> Timer:
        """Call ``callback`` once, in the first round at or after ``when_ns``."""
        timer = Timer(self, when_ns, callback)
        heapq.heappush(self._timers, timer)
        return timer

    def read_clock(self) -> int:
        """The time at this moment; ``now_ns`` of a callback is that of the begin of its round."""
        return self._now_ns()

    def call_from_thread(self, callback: Callback) -> None:
        """Call ``callback`` in the loop's next round. The only method that other threads may use."""
        self._pending.append(callback)
        self._wake()

    def on_signal(self, signum: int, callback: Callback) -> None:
        """Call ``callback`` from the loop (not in signal context) after ``signum``. Main thread only (ValueError)."""

        def handler(_signum: int, _frame: FrameType | None) -> None:
            self._raised.append(callback)
            self._wake()

        before = signal.signal(signum, handler)
        self._signals.setdefault(signum, before)
        if self._wakeup_before is None:
            # Without it, a signal that the kernel gives to another thread leaves the main thread in its wait.
            self._wakeup_before = signal.set_wakeup_fd(self._wake_w, warn_on_full_buffer=False)

    @property
    def has_signal(self) -> bool:
        """Whether a signal waits for the next round."""
        return bool(self._raised)

    def run(self) -> None:
        """Run rounds until ``stop``. A ``stop`` that came before ``run`` counts."""
        while not self._stopping:
            self.run_once()
        self._stopping = False

    def stop(self) -> None:
        """Let ``run`` return after the present round."""
        self._stopping = True

    def run_once(self, max_wait_ns: int | None = None) -> None:
        """One round: wait for events or the next timer, at most ``max_wait_ns``, then make the calls that are due."""
        asked_ns = self._now_ns()
        due_ns = self._due_ns(asked_ns, max_wait_ns)
        ready = self._selector.select(None if due_ns is None else max(0, due_ns - asked_ns) / clock.NS_PER_S)
        now_ns = self._at_ns = self._now_ns()
        begin_ns = now_ns if due_ns is None else min(now_ns, max(due_ns, asked_ns))
        self._slowest_ns, self._slowest = now_ns - begin_ns, None
        for key, events in ready:
            watch: _Watch = key.data
            # An earlier call of this round may have removed the descriptor, and even reused its number.
            if events & selectors.EVENT_READ and watch.reader and self._watches.get(key.fd) is watch:
                self._call(watch.reader, now_ns)
            if events & selectors.EVENT_WRITE and watch.writer and self._watches.get(key.fd) is watch:
                self._call(watch.writer, now_ns)
        for waiting in (self._raised, self._pending):
            for _ in range(len(waiting)):
                self._call(waiting.popleft(), now_ns)
        self._run_timers(now_ns)
        self._note_silence(self._at_ns - begin_ns)

    def _call(self, callback: Callback, now_ns: int) -> None:
        callback(now_ns)
        began_ns, self._at_ns = self._at_ns, self._now_ns()
        if self._at_ns - began_ns > self._slowest_ns:
            self._slowest_ns, self._slowest = self._at_ns - began_ns, callback

    def _note_silence(self, duration_ns: int) -> None:
        slowest, self._slowest = self._slowest, None  # a callback is not kept alive by the loop
        is_long = duration_ns >= LONG_SILENCE_NS
        if not is_long and duration_ns <= self.longest_silence.duration_ns:
            return
        silence = Silence(duration_ns, self._slowest_ns, _name(slowest) if slowest else "waiting for the CPU")
        self.longest_silence = max(silence, self.longest_silence)
        if is_long:
            self.on_silence(silence, self._at_ns)

    def close(self) -> None:
        """Give the signals back and free the loop's own descriptors. Watched descriptors are left open."""
        for signum, before in self._signals.items():
            signal.signal(signum, signal.SIG_DFL if before is None else before)
        self._signals.clear()
        if self._wakeup_before is not None:
            signal.set_wakeup_fd(self._wakeup_before)
            self._wakeup_before = None
        if self._wake_r >= 0:
            self._selector.close()
            os.close(self._wake_r)
            os.close(self._wake_w)
            self._wake_r = self._wake_w = -1

    def _due_ns(self, asked_ns: int, max_wait_ns: int | None) -> int | None:
        """When the next round starts at the latest; None: with the next event."""
        if self._raised or self._pending or self._stopping:
            return asked_ns
        due = [] if max_wait_ns is None else [asked_ns + max_wait_ns]
        if self._timers:
            due.append(self._timers[0].when_ns)
        return min(due, default=None)

    def _run_timers(self, now_ns: int) -> None:
        # Only timers that are due at the start: a timer that renews itself in the past must not starve the descriptors.
        while self._timers and self._timers[0].when_ns <= now_ns:
            self._due.append(heapq.heappop(self._timers))
        try:
            while self._due:
                self._call(self._due.pop(0).callback, now_ns)
        finally:
            while self._due:  # a callback raised: the others stay due
                heapq.heappush(self._timers, self._due.pop())

    def _discard(self, timer: Timer) -> None:
        for timers in (self._timers, self._due):
            if timer in timers:
                timers.remove(timer)
        heapq.heapify(self._timers)

    def _drain_wakeups(self, _now_ns: int) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake_r, 4096)

    def _wake(self) -> None:
        # Full: the loop wakes anyway. Closed: nobody waits any more.
        with contextlib.suppress(OSError):
            os.write(self._wake_w, b"\0")

    def _watch(self, fd: int) -> _Watch:
        return self._watches.setdefault(fd, _Watch())

    def _update(self, fd: int) -> None:
        watch = self._watches[fd]
        if not watch.events():
            self.remove(fd)
        elif fd in self._selector.get_map():
            self._selector.modify(fd, watch.events(), watch)
        else:
            self._selector.register(fd, watch.events(), watch)


def _name(callback: Callback) -> str:
    """A readable name: ``Daemon._on_interval``."""
    inner = getattr(callback, "func", callback)  # of functools.partial
    return str(getattr(inner, "__qualname__", type(inner).__name__)).replace(".<locals>", "")
