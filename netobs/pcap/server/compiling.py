"""Filters of clients are compiled beside the loop: in the language of pcap-filter(7) by a process for each."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Callable, Union

from netobs.base.clock import NS_PER_S
from netobs.base.errors import NetobsError
from netobs.base.loop import EventLoop
from netobs.config.schema import PacketCaptureConfig
from netobs.pcap.filters import apart, compile_filter, simple
from netobs.pcap.selection import Filter
from netobs.pcap.server.peer import ROOT, Peer

MAX_AT_ONCE, MAX_OF_ONE = 8, 2
"""Processes: of all clients, and of one user or address. Root is not kept waiting by others: it may have one more."""
REMEMBERED = 64

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
        self._known: OrderedDict[tuple[str, ...], Filter] = OrderedDict()  # without names, a text means the same always

    def submit(self, texts: Sequence[str], peer: Peer, done: Done, now_ns: int) -> Callable[[], None]:
        """Calls ``done`` when ``texts`` is compiled, or cannot be, or takes too long: at once, if nobody else is needed
        for it. What is returned ends that, without ``done``."""
        key = tuple(texts)
        try:
            found = self._known.get(key)
            if found is not None or all(map(simple.is_simple, key)):
                done(found or compile_filter(key), now_ns)
                return lambda: None
            self._check_place(peer)
            compilation = apart.Compilation(key, self._names)
        except NetobsError as error:
            done(error, now_ns)
            return lambda: None
        self._running[compilation] = peer

        def end() -> None:
            if self._running.pop(compilation, None) is not None:
                timer.cancel()
                self._loop.remove(compilation.fileno())
                compilation.close()

        def answer(later_ns: int) -> None:
            result = compilation.result()
            if result is not None:
                end()
                if isinstance(result, Filter) and not self._names:
                    self._remember(key, result)
                done(result, later_ns)

        def too_late(later_ns: int) -> None:
            end()
            done(apart.late(), later_ns)

        timer = self._loop.call_at(now_ns + apart.MAX_TIME_S * NS_PER_S, too_late)
        self._loop.add_reader(compilation.fileno(), answer)
        return end

    def close(self) -> None:
        """Ends all that is at work, without a word."""
        for compilation in tuple(self._running):
            self._loop.remove(compilation.fileno())
            compilation.close()
        self._running.clear()

    def _check_place(self, peer: Peer) -> None:
        others = list(self._running.values())
        mine = sum(each.key == peer.key for each in others)
        if len(others) >= MAX_AT_ONCE + (peer.uid == ROOT) or mine >= MAX_OF_ONE:
            raise NetobsError("too many filters are being compiled", "try again later")

    def _remember(self, key: tuple[str, ...], found: Filter) -> None:
        self._known[key] = found
        if len(self._known) > REMEMBERED:
            self._known.popitem(last=False)
