"""The wall clock is set while the daemon runs: what collectors get is dated by the clock of the moment.

A preloaded library shifts what the daemon reads; the clock of this host stays as it is.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import pytest

from lab.collectors import Nfcapd, UdpSink
from lab.daemon import Daemon, configuration
from lab.namespaces import Lab, command
from lab.programs import wait_until
from lab.traffic import REPOSITORY, Traffic
from netobs.collector.decode import Decoder
from netobs.collector.received import Record
from tests.e2e.interop import TIME_TOLERANCE_NS

pytestmark = pytest.mark.e2e(tools=("make", "gcc", "nfcapd", "nfdump"))

PROTOCOLS = ("ipfix", "netflow9", "netflow5")
HOUR, DAY = 3600, 86_400
FLOWS = 50
TICK_S = TIME_TOLERANCE_NS / 1e9


@dataclass
class Collector:
    """What came to ``sink``: each Message with flows, as its Export Time and the start and end of each flow, s."""

    sink: UdpSink
    decoder: Decoder = field(default_factory=Decoder)
    messages: list[tuple[int, list[tuple[float, float]]]] = field(default_factory=list)
    template_s: int = 0

    def read(self) -> None:
        for raw in self.sink.drain():
            message = self.decoder.decode(raw, "daemon")
            if message.flows:
                assert message.export_time_s >= self.template_s, "RFC 7011, section 8.2"
                self.messages.append((message.export_time_s, [_times(flow) for flow in message.flows]))
            elif not message.options:
                self.template_s = message.export_time_s

    def has(self, flows: int) -> bool:
        self.read()
        return self.decoder.stats.flows == flows


def _times(flow: Record) -> tuple[float, float]:
    texts = (str(flow[f"flow{name}Milliseconds"])[:-1] + "+00:00" for name in ("Start", "End"))
    start, end = (datetime.fromisoformat(text).timestamp() for text in texts)
    return start, end


def environment(directory: Path, offset: Path) -> dict[str, str]:
    """For a program whose wall clock is off by the seconds in ``offset``."""
    library = directory / "wall_clock.so"
    command(["gcc", "-shared", "-fPIC", "-o", str(library), str(REPOSITORY / "lab/wall_clock.c")])
    return {"LD_PRELOAD": str(library), "WALL_CLOCK": str(offset)}


def test_all_protocols_follow_the_wall_clock(lab: Lab, tmp_path: Path) -> None:
    near, far = lab.pair()
    tables = [{"name": name, "protocol": name, "port": 4740 + number} for number, name in enumerate(PROTOCOLS)]
    nfcapd_table = {"name": "nfcapd", "protocol": "netflow9", "port": 4750}
    config = configuration({"eviction_interval": "200ms"}, {"active_timeout": "0s"}, [*tables, nfcapd_table])
    offset = tmp_path / "offset"
    offset.write_text("+0", encoding="ascii")
    with ExitStack() as stack:
        sinks = [stack.enter_context(UdpSink(far.ns, 4740 + number)) for number in range(len(PROTOCOLS))]
        collectors = [Collector(sink) for sink in sinks]
        nfcapd = stack.enter_context(Nfcapd(lab, far.ns, tmp_path, 4750))
        daemon = stack.enter_context(Daemon(lab, far.ns, tmp_path, config, environment=environment(tmp_path, offset)))
        shift_s, windows = 0, []
        for number, step_s in enumerate((0, HOUR, -2 * HOUR, DAY, -DAY)):
            shift_s += step_s
            offset.write_text(f"{shift_s:+d}", encoding="ascii")
            if step_s:
                wait_until(lambda n=number: daemon.log.count("the wall clock was set") == n, "the daemon notices")  # type: ignore[misc]
            begin_s = time.time() + shift_s
            Traffic(flows=FLOWS, flow_base=FLOWS * number).send(lab, near)
            for collector in collectors:
                wait_until(lambda it=collector, n=FLOWS * (number + 1): it.has(n), "flows arrive")  # type: ignore[misc]
                now_s = time.time() + shift_s
                for export_s, flows in collector.messages:
                    assert begin_s - 1 <= export_s <= now_s + 1
                    for start, end in flows:
                        assert begin_s - TICK_S <= start <= end < export_s + 1
                collector.messages.clear()
            windows.append((begin_s - TICK_S, time.time() + shift_s))
        account = daemon.finish()
        shown = [[datetime.fromisoformat(flow[name]).timestamp() for name in ("first", "last")]
                 for flow in nfcapd.flows()]  # fmt: skip
    assert all(account.sent[name].flows == FLOWS * 5 for name in PROTOCOLS)
    assert len(shown) == FLOWS * 5
    assert all(any(low <= first <= last <= high for low, high in windows) for first, last in shown)
