"""Work in a child process that is killed: at a certain line of netobs, or at any moment."""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
import traceback
from types import FrameType
from typing import Any, Callable

Work = Callable[[], object]


def lines_of(work: Work) -> int:
    """How many lines of netobs ``work`` goes through."""
    lines = 0

    def count() -> None:
        nonlocal lines
        lines += 1

    _traced(work, count)
    return lines


def killed_at(line: int, work: Work) -> bool:
    """Runs ``work`` in a child that is killed before the ``line``-th line of netobs that it goes through, from 1.
    Whether it came so far."""

    def child() -> None:
        left = line

        def count() -> None:
            nonlocal left
            left -= 1
            if not left:
                os.kill(os.getpid(), signal.SIGKILL)

        _traced(work, count)

    return _in_child(child) == signal.SIGKILL


def killed_after(seconds: float, work: Work) -> bool:
    """Runs ``work`` in a child that the kernel ends after ``seconds``, wherever it is: nothing handles the signal.
    Whether it was still at work."""

    def child() -> None:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, seconds)
        work()
        signal.setitimer(signal.ITIMER_REAL, 0)

    return _in_child(child) == signal.SIGALRM


def _traced(work: Work, on_line: Callable[[], None]) -> None:
    def trace(frame: FrameType, event: str, _argument: Any) -> Any:
        if not frame.f_globals.get("__name__", "").startswith("netobs."):
            return None
        if event == "line":
            on_line()
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)


def _in_child(work: Work) -> int:
    """The signal that ended the child, or 0."""
    pid = os.fork()
    if not pid:
        faulthandler.disable()  # pytest's would speak of a signal that is meant
        status = 1
        try:
            work()
            status = 0
        finally:
            if status:
                traceback.print_exc()
            os._exit(status)
    _, ended = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(ended) or os.WEXITSTATUS(ended) == 0, "the child failed: its traceback is above"
    return os.WTERMSIG(ended) if os.WIFSIGNALED(ended) else 0
