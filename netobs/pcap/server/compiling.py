"""Filters of clients are compiled beside the loop: in the language of pcap-filter(7) by a process for each."""

from __future__ import annotations

from collections.abc import Generator, Sequence

from netobs.base import background
from netobs.base.clock import NS_PER_S
from netobs.base.errors import FilterError, NetobsError
from netobs.base.loop import EventLoop
from netobs.config.schema import PacketCaptureConfig
from netobs.pcap.filters import apart, compile_filter, simple
from netobs.pcap.selection import Filter
from netobs.pcap.server.connection import Connection, Wait
from netobs.pcap.server.peer import ROOT, Peer

MAX_AT_ONCE, MAX_OF_ONE = 8, 2
"""Processes: of all clients, and of one user or address. Root is not kept waiting by others: it may have one more."""


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
        self._peers: dict[apart.Compilation, Peer] = {}

    def compile(self, texts: Sequence[str], connection: Connection) -> Generator[Wait, None, Filter]:
        """A part of the conversation of ``connection``. The process ends with it.

        :raises FilterError: it cannot be compiled, or not in time, or there is no place for it.
        """
        if all(map(simple.is_simple, texts)):
            return compile_filter(texts)
        others, peer = list(self._peers.values()), connection.peer
        mine = sum(each.key == peer.key for each in others)
        if len(others) >= MAX_AT_ONCE + (peer.uid == ROOT) or mine >= MAX_OF_ONE:
            raise FilterError("too many filters are being compiled", "try again later")
        answers: list[Filter | NetobsError] = []

        def answered(answer: Filter | NetobsError, now_ns: int) -> None:
            answers.append(answer)
            connection.wake_soon(now_ns)

        compilation = apart.Compilation(texts, self._names)
        self._peers[compilation] = peer
        try:
            background.run(self._loop, "filter", compilation.result, answered)
            until_ns = connection.now_ns + apart.MAX_TIME_S * NS_PER_S
            while not answers:
                yield Wait(until_ns)
                connection.read()
                if connection.now_ns >= until_ns:
                    raise apart.late()
        finally:
            del self._peers[compilation]
            compilation.close()
        if isinstance(answers[0], NetobsError):
            raise answers[0]
        return answers[0]
