"""Filters of clients are compiled beside the loop: in the language of pcap-filter(7) by a process for each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Callable, Union

from netobs.base import background
from netobs.base.clock import NS_PER_S
from netobs.base.errors import NetobsError
from netobs.base.loop import EventLoop
from netobs.config.schema import PacketCaptureConfig
from netobs.pcap.filters import apart
from netobs.pcap.selection import Filter
from netobs.pcap.server.peer import ROOT, Peer

MAX_AT_ONCE, MAX_OF_ONE = 8, 2
"""Processes: of all clients, and of one user or address. Root is not kept waiting by others: it may have one more."""

Done = Callable[[Union[Filter, NetobsError], int], None]
"""Gets the filter or what is wrong with it, and ``now_ns``. Called once."""


def compile_configured(config: PacketCaptureConfig) -> Filter:
    """The filter of the configuration, which may name hosts. Blocks.

    :raises NetobsError: it cannot be compiled; the message names the key.
    """
    try:
        return apart.compile_apart(config.filter)
    except NetobsError as error:
        raise NetobsError(f"packet_capture.filter: {error}", may_pass=error.may_pass) from error


class Compiler:
    """Compiles filters of clients. ``names``: whether the name service may be asked."""

    def __init__(self, loop: EventLoop, names: bool) -> None:
        self._loop = loop
        self._names = names
        self._running: dict[apart.Compilation, Peer] = {}

    def submit(self, texts: Sequence[str], peer: Peer, done: Done, now_ns: int) -> Callable[[], None]:
        """Calls ``done`` when ``texts`` is compiled, or cannot be, or takes too long. What is returned ends that,
        without ``done``.

        :raises NetobsError: there is no place for it, or it cannot be started.
        """
        others = list(self._running.values())
        mine = sum(each.key == peer.key for each in others)
        if len(others) >= MAX_AT_ONCE + (peer.uid == ROOT) or mine >= MAX_OF_ONE:
            raise NetobsError("too many filters are being compiled", "try again later")
        compilation = apart.Compilation(texts, self._names)
        self._running[compilation] = peer

        def end() -> None:
            timer.cancel()
            if self._running.pop(compilation, None) is not None:
                compilation.close()

        def answered(result: Filter | NetobsError, later_ns: int) -> None:
            if compilation in self._running:
                end()
                done(result, later_ns)

        timer = self._loop.call_at(now_ns + apart.MAX_TIME_S * NS_PER_S, lambda _now_ns: compilation.close())
        background.run(self._loop, "filter", compilation.result, answered)
        return end

    def close(self) -> None:
        """Ends all that is at work, without a word."""
        for compilation in self._running:
            compilation.close()
        self._running.clear()
