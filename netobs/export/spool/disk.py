"""The thread of a spool: it waits for the disk, so that the event loop does not.

A disk can hang for minutes (NFS, a failing drive, a frozen file system), and a waiting system call cannot be
cancelled. So each spool has a thread, which gets jobs one after another; the loop gets the results.
"""

from __future__ import annotations

import functools
import queue
import threading
from collections import deque
from typing import Callable, NamedTuple, Protocol, TypeVar

from netobs.base.errors import ExportError
from netobs.base.loop import EventLoop
from netobs.export.stats import ExportStats
from netobs.flow.tally import Tally

T = TypeVar("T")


class Counts(Protocol):
    """Counts a spool's flows: ``ExportStats``, or ``Deferred``."""

    def spool(self, tally: Tally) -> None: ...

    def take_over(self, tally: Tally) -> None: ...

    def count_not_sent(self, reason: str, tally: Tally, spooled: bool = False) -> None: ...


class Deferred:
    """Keeps the thread's counts until the loop adds them to its account."""

    def __init__(self) -> None:
        self._entries: list[Callable[[ExportStats], None]] = []

    def spool(self, tally: Tally) -> None:
        """As ``ExportStats``, later."""
        self._entries.append(lambda stats: stats.spool(tally))

    def take_over(self, tally: Tally) -> None:
        """As ``ExportStats``, later."""
        self._entries.append(lambda stats: stats.take_over(tally))

    def count_not_sent(self, reason: str, tally: Tally, spooled: bool = False) -> None:
        """As ``ExportStats``, later."""
        self._entries.append(lambda stats: stats.count_not_sent(reason, tally, spooled))

    def taken(self) -> list[Callable[[ExportStats], None]]:
        """The counts since the last call."""
        entries, self._entries = self._entries, []
        return entries


class _Finished(NamedTuple):
    tell: Callable[[int], None]
    entries: list[Callable[[ExportStats], None]]


class Disk:
    """Does jobs in their order. Only ``work`` of each runs in the thread; everything else runs in the loop.

    At the end of a job, ``stats`` gets its ``counts``, and the loop its result. The caller bounds the number of jobs.
    """

    def __init__(self, loop: EventLoop, stats: ExportStats) -> None:
        self.counts = Deferred()
        self._loop = loop
        self._stats = stats
        self._jobs: queue.SimpleQueue[Callable[[], _Finished] | None] = queue.SimpleQueue()
        self._finished: deque[_Finished] = deque()
        self._submitted_ns: deque[int] = deque()  # of the jobs that are not finished
        self._abandoned = False
        try:
            threading.Thread(target=self._run, name="netobs-spool", daemon=True).start()
        except RuntimeError as error:  # can't start new thread
            raise ExportError(
                "the system starts no thread for the spool", "raise the limit of tasks, TasksMax in the unit", True
            ) from error

    def submit(self, work: Callable[[], T], done: Callable[[T, int], None], now_ns: int) -> None:
        """Run ``work`` in the thread, then call ``done`` in the loop with the result. An error is raised there, too."""

        def job() -> _Finished:
            if self._abandoned:
                return _Finished(_nothing, [])
            try:
                result = work()
            except Exception as error:  # noqa: BLE001  the loop decides
                return _Finished(functools.partial(_throw, error), self.counts.taken())
            return _Finished(lambda later_ns: done(result, later_ns), self.counts.taken())

        self._submitted_ns.append(now_ns)
        self._jobs.put(job)

    @property
    def busy(self) -> bool:
        """Whether there are jobs that are not done."""
        return bool(self._submitted_ns)

    def waited_ns(self, now_ns: int) -> int:
        """Age of the oldest unfinished job."""
        return now_ns - self._submitted_ns[0] if self._submitted_ns else 0

    def wait(self, within_s: float, now_ns: int) -> None:
        """Wait for all jobs, up to a limit. Only for the start, before the loop runs."""
        through = threading.Event()
        self.submit(through.set, lambda _result, _now_ns: None, now_ns)
        through.wait(within_s)
        self._settle(now_ns)

    def end(self) -> None:
        """Ends the thread after the last job."""
        self._jobs.put(None)

    def abandon(self, last: Callable[[], None]) -> None:
        """Drops all results. Of the jobs, only the present one, which hangs, and ``last`` are done."""

        def job() -> _Finished:
            last()
            return _Finished(_nothing, [])

        self._abandoned = True
        self._submitted_ns.clear()
        self._jobs.put(job)
        self.end()

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            self._finished.append(job())
            if len(self._finished) == 1:  # else the loop has been woken, and has not looked yet
                self._loop.call_from_thread(self._settle)

    def _settle(self, now_ns: int) -> None:
        while self._finished:
            finished = self._finished.popleft()
            if not self._abandoned:
                self._submitted_ns.popleft()
                for entry in finished.entries:
                    entry(self._stats)
                finished.tell(now_ns)


def _nothing(_now_ns: int) -> None:
    pass


def _throw(error: Exception, _now_ns: int) -> None:
    raise error
