"""The export protocols: an encoder and a sink for each. A new one needs a row here and in ``netobs.base.words``.

Its modules are imported when a collector is configured with it.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Callable, NamedTuple

from netobs.base.loop import EventLoop
from netobs.config import CollectorConfig
from netobs.encode import protocols
from netobs.encode.protocols import Exporter
from netobs.export.session import TransportSession
from netobs.export.sink import Sink
from netobs.flow.report import Report

if TYPE_CHECKING:
    from netobs.export.kept.session import Place


class Surroundings(NamedTuple):
    """A sink's connections to the daemon. ``report(realtime_ns)`` returns the daemon's report about itself.

    ``start_within_s``: how long the sink may block while it is made. ``place``: where it keeps what outlives the
    process, if anything does.
    """

    loop: EventLoop
    report: Callable[[int], Report]
    start_within_s: float
    place: Place | None = None


class Protocol(NamedTuple):
    """``exporter``: from the template, the start of the exporter (CLOCK_MONOTONIC) and the sampling interval."""

    exporter: Callable[[str, int, int], Exporter]
    sink: Callable[[CollectorConfig, Exporter, Surroundings], Sink]


def _session(config: CollectorConfig, made: Exporter, surroundings: Surroundings) -> Sink:
    session: TransportSession[Any, Any] = TransportSession(config, made.encoder, made.header, *surroundings)
    return session


PROTOCOLS = {
    name: Protocol(functools.partial(protocols.exporter, name), _session) for name in ("ipfix", "netflow9", "netflow5")
}


def exporter(protocol: str, template: str, boot_ns: int, sampling: int) -> Exporter:
    """The encoder of ``protocol`` for the template file ``template``. Raises TemplateError."""
    return PROTOCOLS[protocol].exporter(template, boot_ns, sampling)


def sink(config: CollectorConfig, made: Exporter, surroundings: Surroundings) -> Sink:
    """The sink of the collector ``config``, whose encoder is that of ``made``. Raises ExportError."""
    return PROTOCOLS[config.protocol].sink(config, made, surroundings)
