"""Transport Sessions of NetFlow v9 and v5: the sequence counts Messages, or flows, whatever is sent between."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest

from lab.samples import batch, flow
from netobs.base.clock import ClockPair
from netobs.base.loop import EventLoop
from netobs.collector.decode import Decoder
from netobs.encode.protocols import exporter
from netobs.export import TransportSession
from netobs.export.link.udp import PACE_NS
from netobs.flow.records import FlowBatch
from tests.unit.export.support import REALTIME_NS, SECOND, UdpCollector, udp_config

FLOWS = 100
REFRESH_S = 60


@pytest.mark.parametrize("protocol", ["ipfix", "netflow9", "netflow5"])
def test_the_wall_clock_is_set(
    make_udp: Callable[..., UdpCollector], cleanup: contextlib.ExitStack, protocol: str
) -> None:
    """As a collector sees it: flows lie where they were by the clock of their export, none after its Message."""
    collector = make_udp()
    config = replace(udp_config(collector.port), protocol=protocol)
    now_ns, offset_ns = 1_000 * SECOND, REALTIME_NS
    loop = cleanup.enter_context(contextlib.closing(EventLoop(lambda: now_ns)))
    encoder, header, _ = exporter(protocol, "default", now_ns - 10 * SECOND, 1)
    session: TransportSession[Any, Any] = TransportSession(config, encoder, header, loop)
    cleanup.callback(lambda: session.close(now_ns, now_ns))
    session.open(ClockPair(now_ns, now_ns + offset_ns), now_ns)
    decoder, anchor_s = Decoder(), 0
    for _ in range(5):
        now_ns += PACE_NS
        loop.run_once(0)
    for raw in collector.raw():
        decoder.decode(raw, "exporter")
    for step_s in (0, 3600, -7200, 86_400, -86_400, -86_400, 1, -1, 2, -2):
        offset_ns += step_s * SECOND
        now_ns += 60 * SECOND
        clock, times = ClockPair(now_ns, now_ns + offset_ns), {"first_ns": now_ns - 30 * SECOND, "last_ns": now_ns}
        records = flow("192.0.2.1", "192.0.2.2", **times)
        session.send(encoder.encode(FlowBatch(records, clock)).data_sets, clock, now_ns)
        now_ns += PACE_NS
        loop.run_once(0)
        wall_s = (now_ns + offset_ns) / 1e9
        for raw in collector.raw():
            message = decoder.decode(raw, "exporter")
            assert abs(message.export_time_s - wall_s) <= 1 + PACE_NS / 1e9
            if not message.flows:
                anchor_s = message.export_time_s
            assert message.export_time_s >= anchor_s
            for each in message.flows:
                start, end = (_seconds(each[f"flow{name}Milliseconds"]) for name in ("Start", "End"))
                assert start <= end < message.export_time_s + 1
                assert end - start == pytest.approx(30, abs=0.0011)
                assert end == pytest.approx(clock.realtime_ns / 1e9, abs=0.0011)
    assert decoder.stats.flows == 10


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text[:-1] + "+00:00").timestamp()


@pytest.mark.parametrize(("protocol", "templates"), [("netflow9", True), ("netflow5", False)])
def test_sequence_over_refreshes(
    make_udp: Callable[..., UdpCollector], cleanup: contextlib.ExitStack, protocol: str, templates: bool
) -> None:
    collector = make_udp()
    config = replace(udp_config(collector.port), protocol=protocol)
    now_ns = [5 * SECOND]
    loop = cleanup.enter_context(contextlib.closing(EventLoop(lambda: now_ns[0])))
    encoder, header, _ = exporter(protocol, "default", 0, 1)
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
        session.send(encoder.encode(batch(*[flow("192.0.2.1", "192.0.2.2")] * FLOWS)).data_sets, clock(), now_ns[0])
        rounds()
        raw += collector.raw()
        now_ns[0] += REFRESH_S * SECOND
        rounds()
    session.close(now_ns[0], now_ns[0])
    rounds()
    raw += collector.raw()
    found = [decoder.decode(message, "exporter") for message in raw]
    assert sum(len(message.flows) for message in found) == 5 * FLOWS == session.account.sent.flows
    assert (session.account.template_messages >= 5) == templates
    assert found[0].sequence == 0
    stats = decoder.stats
    assert (stats.sequence_errors, stats.lost_messages, stats.lost_records, stats.sets_without_template) == (0, 0, 0, 0)
    assert len(raw) == session.account.messages + session.account.template_messages
