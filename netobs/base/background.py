"""Work that may block (files, names, certificates), in a thread beside the event loop."""

from __future__ import annotations

import functools
import threading
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


def _raise(error: BaseException, _now_ns: int) -> None:
    raise error
