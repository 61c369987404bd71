"""Transport Sessions of NetFlow v9 and v5: the sequence counts Messages, or flows, whatever is sent between."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from netobs.encode.decode import Decoder
from netobs.encode.protocols import exporter
from netobs.export import TransportSession
from netobs.export.udp import PACE_NS
from netobs.loop import EventLoop
from netobs.records import ClockPair
from tests.unit.encode.samples import batch, flow
from tests.unit.export.support import REALTIME_NS, SECOND, UdpCollector, udp_config

FLOWS = 100
REFRESH_S = 60


@pytest.mark.parametrize(("protocol", "templates"), [("netflow9", True), ("netflow5", False)])
def test_sequence_over_refreshes(
    make_udp: Callable[..., UdpCollector], cleanup: contextlib.ExitStack, protocol: str, templates: bool
) -> None:
    collector = make_udp()
    config = replace(udp_config(collector.port), protocol=protocol)
    now_ns = [5 * SECOND]
    loop = cleanup.enter_context(contextlib.closing(EventLoop(lambda: now_ns[0])))
    encoder, header, _ = exporter(protocol, "default", REALTIME_NS // SECOND, 1)
    session: TransportSession[Any, Any] = TransportSession(config, encoder, header, loop)

    def clock() -> ClockPair:
        return ClockPair(now_ns[0], REALTIME_NS + now_ns[0])

    def rounds() -> None:
        for _ in range(5):
            now_ns[0] += PACE_NS
            loop.run_once(0)

    session.open(clock(), now_ns[0])
    decoder, raw = Decoder(), []
    for _ in range(5):
        session.send(encoder.encode(batch(*[flow("192.0.2.1", "192.0.2.2")] * FLOWS)), clock(), now_ns[0])
        rounds()
        raw += collector.raw()
        now_ns[0] += REFRESH_S * SECOND
        rounds()
    session.close(now_ns[0], now_ns[0])
    rounds()
    raw += collector.raw()
    found = [decoder.decode(message, "exporter") for message in raw]
    assert sum(len(message.flows) for message in found) == 5 * FLOWS == session.stats.sent.flows
    assert (session.stats.template_messages >= 5) == templates
    assert found[0].sequence == 0
    stats = decoder.stats
    assert (stats.sequence_errors, stats.lost_messages, stats.lost_records, stats.sets_without_template) == (0, 0, 0, 0)
    assert len(raw) == session.stats.messages + session.stats.template_messages
