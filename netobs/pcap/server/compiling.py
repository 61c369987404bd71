"""Filters are compiled beside the loop: libpcap asks the name service for hosts and networks, which can take long."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Callable, Union

from netobs.base.clock import NS_PER_S
from netobs.base.errors import NetobsError
from netobs.base.loop import EventLoop
from netobs.config.schema import PacketCaptureConfig
from netobs.pcap.selection import Filter

MAX_TIME_NS = 10 * NS_PER_S
MAX_THREADS = 8
"""A thread that hangs cannot be ended: no more than these."""

CompileFilter = Callable[[Sequence[str]], Filter]
"""Blocks; raises NetobsError."""
Done = Callable[[Union[Filter, NetobsError], int], None]
"""Gets the filter or what is wrong with it, and ``now_ns``. Called once."""


def compile_configured(compile_filter: CompileFilter, config: PacketCaptureConfig) -> Filter:
    """The filter of the configuration. Blocks.

    :raises NetobsError: it cannot be compiled; the message names the key.
    """
    try:
        return compile_filter(config.filter)
    except NetobsError as error:
        raise NetobsError(f"packet_capture.filter: {error}", may_pass=error.may_pass) from error


class Compiler:
    """Runs ``compile_filter`` in threads that do not keep the program from ending."""

    def __init__(self, loop: EventLoop, compile_filter: CompileFilter) -> None:
        self._loop = loop
        self._compile = compile_filter
        self.running = 0
        """Threads that are at work, or hang."""

    def submit(self, texts: Sequence[str], done: Done, now_ns: int) -> None:
        """Call ``done`` when ``texts`` is compiled, or cannot be, or takes too long."""
        if self.running >= MAX_THREADS:
            done(NetobsError("too many filters are being compiled", "try again later"), now_ns)
            return
        self.running += 1
        waiting = [done]
        late = NetobsError(
            f"the filter was not compiled within {MAX_TIME_NS // NS_PER_S} s: the name service does not answer",
            "use addresses instead of names",
        )

        def answer(result: Filter | NetobsError, now_ns: int) -> None:
            if waiting:
                timer.cancel()
                waiting.pop()(result, now_ns)

        def finished(result: Filter | NetobsError, now_ns: int) -> None:
            self.running -= 1
            answer(result, now_ns)

        def work() -> None:
            result: Filter | NetobsError
            try:
                result = self._compile(texts)
            except NetobsError as error:
                result = error
            self._loop.call_from_thread(lambda later_ns: finished(result, later_ns))

        timer = self._loop.call_at(now_ns + MAX_TIME_NS, lambda later_ns: answer(late, later_ns))
        threading.Thread(target=work, name="netobs-filter", daemon=True).start()
