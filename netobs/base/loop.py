"""A small single-threaded event loop: file descriptors, timers, signals, and results handed in by other threads.

Every callback gets ``now_ns`` (CLOCK_MONOTONIC), read once per round, so that the stages need no clock of their own.
An exception in a callback leaves ``run`` as it is: the daemon decides, nothing is swallowed.
"""

from __future__ import annotations

import contextlib
import heapq
import os
import selectors
import signal
from collections import deque
from types import FrameType, TracebackType
from typing import Any, Callable

from netobs.base import clock

Callback = Callable[[int], None]


class _Watch:
    """What one file descriptor is watched for. Its identity tells a descriptor from a later one of the same number."""

    def __init__(self) -> None:
        self.reader: Callback | None = None
        self.writer: Callback | None = None

    def events(self) -> int:
        return (selectors.EVENT_READ if self.reader else 0) | (selectors.EVENT_WRITE if self.writer else 0)


class Timer:
    """A call that is due at ``when_ns``. ``cancel`` may be called at any time, also after the call was made."""

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
        self._pending: deque[Callback] = deque()  # filled by signal handlers and by other threads
        self._signals: dict[int, Any] = {}  # the handlers that were there before ours
        self._wakeup_before: int | None = None
        self._stopping = False
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

    def call_from_thread(self, callback: Callback) -> None:
        """Call ``callback`` in the loop's next round. The only method that other threads may use."""
        self._pending.append(callback)
        self._wake()

    def on_signal(self, signum: int, callback: Callback) -> None:
        """Call ``callback`` from the loop (not in signal context) after ``signum``. Main thread only (ValueError)."""

        def handler(_signum: int, _frame: FrameType | None) -> None:
            self._pending.append(callback)
            self._wake()

        before = signal.signal(signum, handler)
        self._signals.setdefault(signum, before)
        if self._wakeup_before is None:
            # Without it, a signal that the kernel gives to another thread leaves the main thread in its wait.
            self._wakeup_before = signal.set_wakeup_fd(self._wake_w, warn_on_full_buffer=False)

    @property
    def has_pending(self) -> bool:
        """Whether a signal has come, or a thread has handed something in, that waits for the next round."""
        return bool(self._pending)

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
        ready = self._selector.select(self._wait_s(max_wait_ns))
        now_ns = self._now_ns()
        for key, events in ready:
            watch: _Watch = key.data
            # An earlier call of this round may have removed the descriptor, and even reused its number.
            if events & selectors.EVENT_READ and watch.reader and self._watches.get(key.fd) is watch:
                watch.reader(now_ns)
            if events & selectors.EVENT_WRITE and watch.writer and self._watches.get(key.fd) is watch:
                watch.writer(now_ns)
        for _ in range(len(self._pending)):
            self._pending.popleft()(now_ns)
        self._run_timers(now_ns)

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

    def _wait_s(self, max_wait_ns: int | None) -> float | None:
        if self._pending or self._stopping:
            return 0
        waits = [] if max_wait_ns is None else [max_wait_ns]
        if self._timers:
            waits.append(max(0, self._timers[0].when_ns - self._now_ns()))
        return min(waits) / clock.NS_PER_S if waits else None

    def _run_timers(self, now_ns: int) -> None:
        # Only what is due at the start: a timer that renews itself in the past must not starve the descriptors.
        while self._timers and self._timers[0].when_ns <= now_ns:
            self._due.append(heapq.heappop(self._timers))
        try:
            while self._due:
                self._due.pop(0).callback(now_ns)
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
