"""Work that may block (files, names, certificates), in a thread beside the event loop."""

from __future__ import annotations

import functools
import threading
from collections import deque
from typing import Callable, TypeVar

from netobs.base.errors import NetobsError
from netobs.base.loop import EventLoop

Result = TypeVar("Result")


def run(
    loop: EventLoop, name: str, work: Callable[[], Result], done: Callable[[Result | NetobsError, int], None]
) -> None:
    """Calls ``work`` in a thread, then ``done`` in a round of ``loop``, with ``now_ns`` and the result of ``work`` or
    the NetobsError that it raised. Any other exception is raised in the loop: nothing is swallowed.

    The thread does not keep the program from ending. ``work`` must not touch the loop's objects.
    """

    def in_thread() -> None:
        result: Result | NetobsError
        try:
            result = work()
        except NetobsError as error:
            result = error
        except BaseException as error:  # noqa: BLE001  raised again, in the loop
            loop.call_from_thread(functools.partial(_raise, error))
            return
        loop.call_from_thread(lambda now_ns: done(result, now_ns))

    try:
        threading.Thread(target=in_thread, name=f"netobs-{name}", daemon=True).start()
    except RuntimeError:  # can't start new thread
        refused = NetobsError("the system starts no thread", "raise the limit of tasks, TasksMax in the unit", True)
        loop.call_from_thread(lambda now_ns: done(refused, now_ns))


class InTurn:
    """Runs one work at a time, and after each lets as much time pass as it took: all that wait, however many, take half
    of a CPU at most, and no more threads contend with the loop."""

    def __init__(self, loop: EventLoop, name: str) -> None:
        self._loop, self._name = loop, name
        self._waiting: deque[Callable[[int], None]] = deque()
        self._is_busy = False

    def run(
        self,
        prepare: Callable[[int], Callable[[], Result]],
        done: Callable[[Result | NetobsError, int], None],
        now_ns: int,
    ) -> None:
        """Calls ``prepare`` with ``now_ns`` when it is its turn; what that returns runs in a thread, as ``work`` of
        ``run``, and ``done`` gets the result."""

        def begin(now_ns: int) -> None:
            def ended(result: Result | NetobsError, later_ns: int) -> None:
                done(result, later_ns)
                self._loop.call_at(2 * later_ns - now_ns, self._next)

            run(self._loop, self._name, prepare(now_ns), ended)

        self._waiting.append(begin)
        if not self._is_busy:
            self._is_busy = True
            self._next(now_ns)

    def _next(self, now_ns: int) -> None:
        if self._waiting:
            self._waiting.popleft()(now_ns)
        else:
            self._is_busy = False


def _raise(error: BaseException, _now_ns: int) -> None:
    raise error
