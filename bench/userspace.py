"""CPU time of this process for each exported flow, by stage: evict, meter, encode, send."""

from __future__ import annotations

import json
import socket
import statistics
import sys
import time
from typing import Any, Callable

from bench.fill import fill
from netobs import clock
from netobs.capture.capture import Capture
from netobs.config import CaptureConfig, CollectorConfig
from netobs.encode import template_file
from netobs.encode.ipfix import Encoder, Header
from netobs.export.session import TransportSession
from netobs.loop import EventLoop
from netobs.metering.process import Metering
from netobs.records import FlowBatch

STAGES = ("evict", "meter", "encode", "send")


class Stopwatch:
    """Adds up the CPU time (user and system, ns) of what runs inside ``measure``."""

    def __init__(self) -> None:
        self.ns: dict[str, int] = dict.fromkeys(STAGES, 0)

    def measure(self, stage: str, call: Callable[[], Any]) -> Any:
        before = time.process_time_ns()
        result = call()
        self.ns[stage] += time.process_time_ns() - before
        return result


def memory_mib(key: str) -> float:
    """VmRSS or VmHWM of this process."""
    with open("/proc/self/status", encoding="ascii") as status:
        line = next(line for line in status if line.startswith(key))
    return int(line.split()[1]) / 1024


class Pipeline:
    """Every stage of the daemon, each called by hand."""

    def __init__(self, flow_table: str, flows: int, port: int) -> None:
        self.capture = Capture(CaptureConfig(flow_table=flow_table, max_flows=2 * flows))
        self.capture.load()
        self.program = self.capture._object.program_fd("netobs_ingress")  # type: ignore[union-attr]
        self.metering = Metering(active_timeout_ns=0, idle_timeout_ns=clock.NS_PER_S)
        self.encoder = Encoder(template_file.load("default"))
        self.loop = EventLoop()
        config = CollectorConfig(host="127.0.0.1", port=port, observation_domain=1)
        self.session = TransportSession(config, self.encoder, Header, self.loop)
        self.session.open(clock.read_pair(), clock.monotonic_ns())

    def interval(self, flows: int, first: int) -> Stopwatch:
        """Fills the table with ``flows`` flows and takes them all the way to the socket."""
        fill(self.program, flows, first)
        watch = Stopwatch()
        rows = watch.measure("evict", lambda: self.capture.evict(clock.monotonic_ns()))
        assert len(rows) == flows, f"{len(rows)} of {flows} flows evicted"
        due = watch.measure("meter", lambda: self.metering.update(rows, clock.monotonic_ns()))
        pair = clock.read_pair()
        data_sets = watch.measure("encode", lambda: self.encoder.encode(FlowBatch(due, pair)))
        watch.measure("send", lambda: self.send(data_sets, pair))
        return watch

    def send(self, data_sets: list[Any], pair: Any) -> None:
        self.session.send(data_sets, pair, clock.monotonic_ns())
        while self.session.stats.queued.flows:
            self.loop.run_once(100_000_000)

    def close(self) -> None:
        self.capture.close()
        self.loop.close()


def run(flow_table: str, flows: int, rounds: int) -> dict[str, Any]:
    """Medians over ``rounds`` evictions of ``flows`` flows each; the first round warms up and does not count."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sink:  # takes what fits its buffer: nobody reads
        sink.bind(("127.0.0.1", 0))
        pipeline = Pipeline(flow_table, flows, sink.getsockname()[1])
        idle = memory_mib("VmRSS")
        watches = [pipeline.interval(flows, index * flows) for index in range(rounds + 1)][1:]
        sent = pipeline.session.stats.sent.flows
        pipeline.close()
    result: dict[str, Any] = {
        f"{stage}_us_per_flow": statistics.median(watch.ns[stage] for watch in watches) / flows / 1000
        for stage in STAGES
    }
    result["total_us_per_flow"] = statistics.median(sum(watch.ns.values()) for watch in watches) / flows / 1000
    result.update(flow_table=flow_table, flows=flows, rounds=rounds, sent=sent)
    result.update(rss_idle_mib=idle, rss_peak_mib=memory_mib("VmHWM"))
    return result


if __name__ == "__main__":
    print(json.dumps(run(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))))
