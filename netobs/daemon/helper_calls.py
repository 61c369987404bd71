"""Calls of the root helper, which may hang, beside the loop."""

from __future__ import annotations

import errno
from collections import deque
from typing import Any, Callable, TypeVar

from netobs.base import background
from netobs.base.errors import NetobsError
from netobs.base.loop import EventLoop
from netobs.kernel.helper_client import Helper

Answer = TypeVar("Answer")


class HelperCalls:
    """Makes one call after the other, each in a thread. The helper is used nowhere else until ``close``."""

    def __init__(self, helper: Helper, loop: EventLoop, on_away: Callable[[str, int], None]) -> None:
        """``on_away`` is called with the reason when the helper cannot be asked. Then all calls that wait fail."""
        self.helper = helper
        self._loop, self._on_away = loop, on_away
        self._waiting: deque[tuple[Callable[[], Any], Callable[[Any, int], None]]] = deque()
        self._is_asked = False
        self._when_idle: list[Callable[[int], None]] = []

    def call(self, ask: Callable[[], Answer], then: Callable[[Answer | OSError, int], None]) -> None:
        """Calls ``ask`` in a thread, then ``then`` in the loop, with the answer or the OSError that ``ask`` raised."""
        self._waiting.append((ask, then))
        self._ask_next()

    def when_idle(self, then: Callable[[int], None], now_ns: int) -> None:
        """Calls ``then`` as soon as no call waits for its answer."""
        if self._is_asked:
            self._when_idle.append(then)
        else:
            then(now_ns)

    def close(self) -> None:
        """Makes no call any more."""
        self._waiting.clear()
        self._when_idle.clear()
        if not self._is_asked:  # else the thread ends with the process
            self.helper.close()

    def _ask_next(self) -> None:
        if self._is_asked or not self._waiting:
            return
        self._is_asked = True
        ask, then = self._waiting.popleft()

        def in_thread() -> Any:
            try:
                return ask()
            except OSError as error:
                return error

        def answered(answer: Any, now_ns: int) -> None:
            self._is_asked = False
            if isinstance(answer, NetobsError):
                answer = OSError(errno.EPIPE, str(answer))
            self._answered(then, answer, now_ns)

        background.run(self._loop, "helper", in_thread, answered)

    def _answered(self, then: Callable[[Any, int], None], answer: Any, now_ns: int) -> None:
        if isinstance(answer, OSError) and (answer.errno == errno.EPIPE or self.helper.fileno() < 0):
            away = OSError(errno.EPIPE, answer.strerror)
            given_up = [then, *(each for _, each in self._waiting)]
            self._waiting.clear()
            self._on_away(str(answer.strerror), now_ns)
            for each in given_up:
                each(away, now_ns)
        else:
            then(answer, now_ns)
        self._ask_next()
        if not self._is_asked:
            idle, self._when_idle = self._when_idle, []
            for call in idle:
                call(now_ns)
