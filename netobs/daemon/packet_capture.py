"""Packet capture in the daemon: an agent while [packet_capture] enables one, another one when its keys change.

``netobs.pcap`` is imported when it is needed: a daemon without it does not pay for it with memory.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING

from netobs.base.clock import NS_PER_S
from netobs.base.errors import NetobsError
from netobs.base.loop import EventLoop
from netobs.config import Config, PacketCaptureConfig
from netobs.config.packet_capture import effective
from netobs.config.text import quoted

if TYPE_CHECKING:
    from netobs.pcap.agent import PacketCaptureAgent

log = logging.getLogger("netobs")

POLL_NS = NS_PER_S // 50
MIB = 1 << 20


def problems(config: Config) -> Iterator[str]:
    """What an agent for ``config`` would stumble over: filter, certificates, address. May block (names)."""
    if config.packet_capture.enabled:
        from netobs.pcap import agent

        yield from agent.problems(effective(config.packet_capture, config.capture))


def plan(config: Config) -> tuple[list[str], list[str], list[str]]:
    """For --dry-run: what would be done, what is odd, and what would keep it from being done. Nothing is attached."""
    if not config.packet_capture.enabled:
        return [], [], []
    from netobs.pcap import agent

    settings, attach = _wanted(config)
    lines = [
        f"packet capture: {settings.listen}, {settings.format}, filter {' or '.join(map(quoted, settings.filter))}",
        f"  interfaces {', '.join(settings.interfaces)}, {settings.direction}",
        f"  while there is a client: {settings.buffer_bytes // MIB or 1} MiB of kernel memory for each CPU, and up to "
        f"{settings.queue_max_bytes * settings.max_clients // MIB} MiB of process memory",
    ]
    if settings.recorder_ns:
        kept_s, most = settings.recorder_ns / NS_PER_S, settings.recorder_max_bytes // MIB
        lines.append(f"  recorder: the last {kept_s:g} s, at most {most} MiB of process memory")
    found = [*problems(config), agent.kernel_problem(settings, attach)]
    return lines, [], [problem for problem in found if problem]


class PacketCapturing:
    """``start`` -> the loop runs, perhaps ``apply`` -> ``stop``, until ``closed`` -> ``close``."""

    def __init__(self, config: Config, loop: EventLoop) -> None:
        self._loop = loop
        self._wanted = _wanted(config)
        self._agent: PacketCaptureAgent | None = None
        self._leaving: list[PacketCaptureAgent] = []

    def start(self, now_ns: int) -> None:
        """Does nothing if it is not enabled.

        :raises NetobsError: it cannot be done.
        """
        config, attach = self._wanted
        if not config.enabled:
            return
        from netobs.pcap.agent import PacketCaptureAgent

        agent = PacketCaptureAgent(config, attach, self._loop)
        try:
            agent.start(now_ns)
        except BaseException:
            agent.close(now_ns)
            raise
        self._agent = agent

    def apply(self, config: Config, now_ns: int) -> None:
        """Goes over to another configuration: with other keys, streams end, and clients connect again. A failure is
        logged, and there is no packet capture until the next one."""
        wanted = _wanted(config)
        if wanted == self._wanted and (self._agent or not wanted[0].enabled):
            return
        self._wanted = wanted
        self.stop(now_ns)
        self._see_off(now_ns)
        try:
            self.start(now_ns)
        except NetobsError as error:
            log.error("reload: no packet capture until the next reload: %s", error)

    def _see_off(self, now_ns: int) -> None:
        """Frees those whose clients are gone, with a last account; asks again soon while there are others."""
        for agent in [each for each in self._leaving if each.closed]:
            for line in agent.lines(now_ns):
                log.info("%s", line)
            agent.close(now_ns)
            self._leaving.remove(agent)
        if self._leaving:
            self._loop.call_at(now_ns + POLL_NS, self._see_off)

    def stop(self, now_ns: int) -> None:
        """Ends all streams, each as it should end."""
        if self._agent is not None:
            self._agent.stop(now_ns)
            self._leaving.append(self._agent)
            self._agent = None

    @property
    def closed(self) -> bool:
        """After ``stop``: no client is left."""
        return all(agent.closed for agent in self._leaving)

    def lines(self, now_ns: int) -> Iterator[str]:
        """What became of the packets, for people."""
        for agent in (self._agent, *self._leaving):
            if agent is not None:
                yield from agent.lines(now_ns)

    def close(self, now_ns: int) -> None:
        """Frees all, at once."""
        for agent in (self._agent, *self._leaving):
            if agent is not None:
                agent.close(now_ns)


def _wanted(config: Config) -> tuple[PacketCaptureConfig, str]:
    """All that an agent depends on."""
    return effective(config.packet_capture, config.capture), config.capture.attach
