"""The state document (``netobs.daemon.state``) as metrics: OpenMetrics 1.0, or Prometheus's text format 0.0.4.

What the document has as null was not measured, and gives no sample. Labels have few values.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Union

Document = Mapping[str, Any]
Sample = tuple[str, Union[int, float, None]]
"""Labels, as ``labels`` writes them, and a value."""

OPENMETRICS_TYPE = "application/openmetrics-text; version=1.0.0; charset=utf-8"
TEXT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

UNITS = ("seconds", "bytes", "flows", "packets", "octets", "ratio")
MOST_INTERFACES = 1000
OTHERS = "others"
SUM_OF_OTHERS = f"; of more than {MOST_INTERFACES} interfaces, those beyond are added up as {OTHERS}"
_SUFFIXES = {"counter": "_total", "info": "_info"}
_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})
_AMOUNTS = ("flows", "packets", "octets")


class Family(NamedTuple):
    """One metric with all of its samples. ``kind``: counter, gauge, info or histogram. ``name`` ends with its unit."""

    name: str
    kind: str
    help: str
    samples: Iterable[Sample]

    def text(self, openmetrics: bool) -> str:
        """The metric in one of the two formats; nothing without samples. OpenMetrics names the family in its head;
        0.0.4, which knows neither info nor units, the sample."""
        sample = self.name + _SUFFIXES.get(self.kind, "")
        lines = [f"{sample}{rest} {value}\n" for rest, value in self.samples if value is not None]
        if not lines:
            return ""
        name, kind = (self.name, self.kind) if openmetrics else (sample, self.kind.replace("info", "gauge"))
        unit = self.name.rpartition("_")[2]
        said = f"# UNIT {name} {unit}\n" if openmetrics and unit in UNITS else ""
        return "".join([f"# TYPE {name} {kind}\n", said, f"# HELP {name} {self.help}\n", *lines])


class Single(NamedTuple):
    """A metric without labels: where the document has it, its name, its kind, and its HELP."""

    path: tuple[str, str]
    name: str
    kind: str
    help: str


SINGLES = (
    Single(("daemon", "started_s"), "netobs_start_time_seconds", "gauge", "Start of the daemon, since 1970"),
    Single(("daemon", "ready_s"), "netobs_ready_time_seconds", "gauge", "When the daemon was ready, since 1970"),
    Single(
        ("configuration", "is_newer"),
        "netobs_configuration_newer",
        "gauge",
        "1: the file has changed since",
    ),
    Single(
        ("loop", "longest_silence_s"),
        "netobs_loop_longest_silence_seconds",
        "gauge",
        "Longest time since the start in which the event loop handled nothing",
    ),
    Single(("table", "max_flows"), "netobs_table_max_flows", "gauge", "capture.max_flows"),
    Single(("table", "evictions"), "netobs_evictions", "counter", "Evictions of the flow table"),
    Single(
        ("table", "emergency_evictions"),
        "netobs_emergency_evictions",
        "counter",
        "Evictions because the flow table was full",
    ),
    Single(("table", "ring_packets"), "netobs_ring_packets", "counter", "Packets that came through the ring buffer"),
    Single(("table", "interval_s"), "netobs_eviction_interval_seconds", "gauge", "capture.eviction_interval"),
    Single(("table", "last_eviction_s"), "netobs_last_eviction_seconds", "gauge", "Duration of the last eviction"),
    Single(("flow_cache", "flows"), "netobs_flow_cache_flows", "gauge", "Flows in the flow cache"),
    Single(("flow_cache", "max_flows"), "netobs_flow_cache_max_flows", "gauge", "metering.max_flows"),
)
PROCESS = (
    Single(("daemon", "cpu_s"), "process_cpu_seconds", "counter", "CPU time of the daemon, user and system"),
    Single(("daemon", "resident_bytes"), "process_resident_memory_bytes", "gauge", "Resident memory of the daemon"),
    Single(("daemon", "descriptors"), "process_open_fds", "gauge", "Open file descriptors of the daemon"),
    Single(("daemon", "max_descriptors"), "process_max_fds", "gauge", "Most file descriptors of the daemon"),
    Single(("daemon", "started_s"), "process_start_time_seconds", "gauge", "Start of the daemon, since 1970"),
)
"""Under the names that every program gives to Prometheus. node_exporter has its own: they are for a scrape only."""

OF_A_COLLECTOR = (
    ("seen", "accepted", "counter", "Handed to the queue of the collector"),
    ("exported", "exported", "counter", "Sent to the collector, with what was sent again, or refused"),
    ("resent", "resent", "counter", "Sent once more, because the collector had not acknowledged it"),
    ("taken_over", "taken_over", "counter", "Found in the spool, from an earlier run"),
    ("moved_away", "moved_away", "counter", "Given to another collector"),
    ("waiting", "waiting", "gauge", "Waiting in the queue of the collector"),
    ("spooled", "spooled", "gauge", "Waiting in the spool of the collector"),
)
"""Amounts of a collector: the key in the document, the word in the name, the kind, and HELP."""


@functools.lru_cache(maxsize=8 * MOST_INTERFACES)
def labels(**pairs: str | None) -> str:
    """The label set of a sample, in the order given; without those that are empty."""
    written = [f'{name}="{value.translate(_ESCAPES)}"' for name, value in pairs.items() if value]
    return "{" + ",".join(written) + "}" if written else ""


def text(families: Iterable[Family], openmetrics: bool) -> str:
    """All of ``families`` that have a sample, in one of the two formats."""
    return "".join([*(family.text(openmetrics) for family in families), "# EOF\n" if openmetrics else ""])


def families(
    document: Document, of_interfaces: Iterable[Family], singles: Sequence[Single] = SINGLES
) -> Iterator[Family]:
    """All metrics of ``document``, which may lack interfaces and problems. ``of_interfaces``: those of interfaces
    (netobs.daemon.interface_metrics)."""
    for path, name, kind, about in singles:
        yield Family(name, kind, about, [("", _number(document[path[0]][path[1]]))])
    yield from _configuration(document)
    yield from of_interfaces
    yield from _events(document)
    yield from _account(document)
    yield from _table(document["table"])
    yield from _collectors(document["collectors"])
    yield from _packet_capture(document["packet_capture"] or {})


def _number(value: Any) -> int | float | None:
    """``value``; true is 1."""
    return int(value) if isinstance(value, bool) else value


def _configuration(document: Document) -> Iterator[Family]:
    configuration = document["configuration"]
    reload = configuration["reload"] or {}
    version = labels(version=document["daemon"]["version"])
    yield Family("netobs_build", "info", "Version of netobs", [(version, 1)])
    waits = len(configuration["waits"])
    yield Family("netobs_configuration_waiting_keys", "gauge", "Keys that wait for the next start", [("", waits)])
    failed = [("", _number(reload.get("failed")))]
    yield Family("netobs_reload_failed", "gauge", "1: the last reload failed; no sample: there was none", failed)
    ended = [("", reload.get("ended_s"))]
    yield Family("netobs_reload_time_seconds", "gauge", "End of the last reload, since 1970", ended)


def _events(document: Document) -> Iterator[Family]:
    events = [(labels(event=name), count) for name, count in document["events"].items()]
    yield Family("netobs_events", "counter", "How often the log warned of it: see netobs(8)", events)


def _account(document: Document) -> Iterator[Family]:
    ledger, cache = document["ledger"], document["flow_cache"]
    for amount in ("packets", "octets"):
        seen = [("", ledger["seen"][amount])]
        about = "Seen on all interfaces, also by former processes that this one goes on for"
        yield Family(f"netobs_account_seen_{amount}", "counter", about, seen)
        reasons = [
            (labels(reason=why, loss=str(its["is_loss"]).lower()), its[amount])
            for why, its in ledger["reasons"].items()
        ]
        yield Family(f"netobs_ledger_{amount}", "counter", "In no flow, by reason: see netobs(8)", reasons)
        taken = [("", cache["taken"][amount])]
        yield Family(f"netobs_taken_{amount}", "counter", "Taken out of the kernel, into the flow cache", taken)
        handed_out = [("", cache["handed_out"][amount])]
        yield Family(f"netobs_handed_out_{amount}", "counter", "Handed out by the flow cache, to export", handed_out)
    ended = [(labels(reason=why), flows) for why, flows in cache["ended"].items()]
    yield Family("netobs_flow_cache_ended_flows", "counter", "Flow Records by flowEndReason", ended)


def _table(table: Document) -> Iterator[Family]:
    levels = [(labels(level=level), flows) for level, flows in table["levels"].items()]
    about = "Flows that the last eviction found, by level of the flow table"
    yield Family("netobs_table_flows", "gauge", about, levels)
    for key, about in (
        ("eviction_seconds", "How long evictions took, with metering and export"),
        ("grace_seconds", "How long evictions waited until no program used the table"),
    ):
        yield Family(f"netobs_{key}", "histogram", about, _histogram(table[key]))


def _histogram(its: Document | None) -> list[Sample]:
    """``counts`` has one number more than ``bounds``: of what is above all of them."""
    samples: list[Sample] = []
    if not its:
        return samples
    total = 0
    for bound, count in zip((*its["bounds"], None), its["counts"]):
        total += count
        samples.append((f'_bucket{{le="{"+Inf" if bound is None else float(bound)}"}}', total))
    return [*samples, ("_count", total), ("_sum", its["sum"])]


def _collectors(collectors: Sequence[Document]) -> Iterator[Family]:
    names = [(labels(collector=each["name"]), each) for each in collectors]
    reaches = [(name, int(each["reach"] == "up")) for name, each in names if each["reach"]]
    yield Family("netobs_collector_up", "gauge", "1: the collector seems to accept Messages", reaches)
    for amount in _AMOUNTS:
        for key, word, kind, about in OF_A_COLLECTOR:
            yield Family(f"netobs_{word}_{amount}", kind, about, [(name, each[key][amount]) for name, each in names])
        reasons = [
            (labels(collector=each["name"], reason=why), lost[amount])
            for each in collectors
            for why, lost in (*each["not_sent"].items(), ("no_template", each["no_template"]))
        ]
        about = "Not sent to the collector, by reason: see netobs(8)"
        yield Family(f"netobs_not_sent_{amount}", "counter", about, reasons)
    queues = [(name, each["queue_bytes"]) for name, each in names]
    yield Family("netobs_queue_bytes", "gauge", "Memory for what waits in the queue of the collector", queues)
    spools = [(name, each["spool"]) for name, each in names if each["spool"]]
    for key, about in (("bytes", "Size of the spool of the collector"), ("max_bytes", "collector.spool_max")):
        yield Family(f"netobs_spool_{key}", "gauge", about, [(name, spool[key]) for name, spool in spools])
    for key, about in (
        ("messages", "Messages to the collector"),
        ("reconnects", "Transport Sessions after the first"),
        ("failed_attempts", "Failed attempts to reach the collector"),
    ):
        yield Family(f"netobs_collector_{key}", "counter", about, [(name, each[key]) for name, each in names])


def _packet_capture(its: Document) -> Iterator[Family]:
    yield Family("netobs_capture_clients", "gauge", "Clients of packet capture", [("", its.get("clients"))])
    lost = [(labels(reason=why), packets) for why, packets in its.get("lost", {}).items()]
    about = "Packets that clients of packet capture did not get, by reason"
    yield Family("netobs_capture_lost_packets", "counter", about, lost)
