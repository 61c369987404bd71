"""The comparison of what a collector shows with what was sent, field by field."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Callable

from netobs.encode.protocols import exporter
from tests.e2e.conversations import Flow, send, source_of
from tests.e2e.daemon import KEPT, Account, Counts, Daemon, Table, configuration
from tests.lab.namespaces import Lab, Link

CLOCK_MONOTONIC_COARSE = 6  # linux/time.h; its resolution is the kernel's tick
TICK_NS = round(time.clock_getres(CLOCK_MONOTONIC_COARSE) * 1e9)
TIME_TOLERANCE_NS = TICK_NS * 5 // 4 + 1_000_000
"""A tick, the quarter of one that netobs stays behind it (capture/tick.py), and the millisecond of the export."""
LOADED_NS = 250_000_000
"""What a packet may wait, on a busy machine, between tcpdump's time stamp and the flow table: most do not wait."""
ONCE = {"eviction_interval": "1h"}
"""[capture] for tests that compare Flow Records: all packets of a flow are in one, flows that end by FIN too."""

ABSENT = object()
"""Stands for a value that a collector does not show."""


def as_it_is(shown: Any) -> Any:
    return shown


@dataclass(frozen=True)
class Shows:
    """A field of a collector's output: which elements it comes from, and what must stand there.

    ``expected(flow)`` may be ``ABSENT``; ``read`` makes what is shown comparable with it. Times may be off by
    ``usual_ns`` in the middle of all flows, and by ``LOADED_NS`` more in each.
    """

    elements: str
    expected: Callable[[Flow], Any]
    read: Callable[[Any], Any] = as_it_is
    usual_ns: int = 0

    def fits(self, flow: Flow, shown: Any) -> bool:
        expected = self.expected(flow)
        if expected is ABSENT or shown is ABSENT:
            return expected is shown
        if self.usual_ns:
            return self.off_ns(flow, shown) <= self.usual_ns + LOADED_NS
        return bool(self.read(shown) == expected)

    def off_ns(self, flow: Flow, shown: Any) -> int:
        return int(abs(self.read(shown) - self.expected(flow)))


def element(name: str, read: Callable[[Any], Any] = as_it_is) -> Shows:
    """A field that is an element as it is, and is not there when the flow has none."""
    return Shows(name, lambda flow: flow.get(name, ABSENT), read)


def moment(name: str, read: Callable[[Any], int], usual_ns: int = TIME_TOLERANCE_NS) -> Shows:
    """A time; ``read`` makes it ns since 1970."""
    return Shows(name, lambda flow: flow[name], read, usual_ns)


def always(value: Any) -> Shows:
    """A field of the collector's own, which does not come from an element."""
    return Shows("", lambda _flow: value)


ANYTHING = Shows("", lambda _flow: True, lambda _shown: True)
"""A field that says nothing of the flow."""

Columns = Mapping[str, Shows]


def differences(sent: Sequence[Flow], shown: Iterable[tuple[str, Mapping[str, Any]]], columns: Columns) -> list[str]:
    """What is not as it must be, a line each. ``shown``: source address and what the collector shows of its flow.

    A field that ``columns`` does not know is a difference, too.
    """
    by_source = {source_of(flow): flow for flow in sent}
    found, seen = [], []
    off: dict[str, list[int]] = {}
    for source, fields in shown:
        seen.append(source)
        flow = by_source.get(source)
        if flow is None:
            found.append(f"{source}: not sent")
            continue
        for name in sorted(columns.keys() | fields.keys()):
            value = fields.get(name, ABSENT)
            if name not in columns:
                found.append(f"{source}: {name} = {value!r} is not compared")
            elif not columns[name].fits(flow, value):
                wanted = columns[name].expected(flow)
                text = ["nothing" if it is ABSENT else repr(it) for it in (value, wanted)]
                found.append(f"{source}: {name} is {text[0]}, must be {text[1]}")
            elif columns[name].usual_ns:
                off.setdefault(name, []).append(columns[name].off_ns(flow, value))
    found += [
        f"{name} is off by {median(all_ns) / 1e6} ms in half of the flows"
        for name, all_ns in off.items()
        if median(all_ns) > columns[name].usual_ns
    ]
    return found + [f"{source}: {seen.count(source)} times" for source in by_source if seen.count(source) != 1]


def templates(protocol: str) -> Sequence[Any]:
    """The templates that the daemon sends by default."""
    return exporter(protocol, "default", 0, 1).encoder.templates


def not_compared(protocol: str, columns: Columns, not_shown: Iterable[str] = ()) -> set[str]:
    """The elements that are sent and neither compared by ``columns`` nor known not to be shown; must be empty."""
    compared = {name for shows in columns.values() for name in shows.elements.split()}
    sent = {field.element.name for template in templates(protocol) for field in template.fields}
    return sent - compared - set(not_shown)


@dataclass(frozen=True)
class Run:
    """What was sent, and what the daemon says of it."""

    flows: list[Flow]
    account: Account
    log: str

    def unencodable(self) -> Counts:
        """What the daemon says that its protocol has no place for."""
        found = re.search(r": no template for (\d+) flows, (\d+) packets, (\d+) octets$", self.log, re.MULTILINE)
        return Counts(*map(int, found.groups())) if found else Counts()


def totals(flows: Sequence[Flow]) -> Counts:
    """Flows, and packets and octets in them."""
    packets, octets = (sum(flow[name] for flow in flows) for name in ("packetDeltaCount", "octetDeltaCount"))
    return Counts(len(flows), packets, octets)


def only_ipv4(flows: Sequence[Flow]) -> list[Flow]:
    return [flow for flow in flows if flow["ipVersion"] == 4]


def observe(lab: Lab, near: Link, far: Link, directory: Path, collector: Table) -> Run:
    """The daemon on ``far`` exports to ``collector`` while all conversations pass."""
    with Daemon(lab, far.ns, directory, configuration(ONCE, KEPT, [collector])) as daemon:
        flows = send(lab, near, far, directory)
        account = daemon.finish()
    assert account.seen.measured == totals(flows).measured
    assert (account.ledger, account.not_sent) == ({}, {})
    return Run(flows, account, daemon.log)


def flow_set_ids(protocol: str) -> set[int]:
    """The Sets that carry flows; other Data Sets carry options."""
    return {template.id for template in templates(protocol)}


def options_messages(messages: Iterable[Mapping[str, Any]], protocol: str) -> int:
    """How many of tshark's ``messages`` carry options data."""
    flow_sets = flow_set_ids(protocol)
    return sum(any(number >= 256 and number not in flow_sets for number, _ in sets(message)) for message in messages)


def sets(message: Mapping[str, Any]) -> list[tuple[int, Mapping[str, Any]]]:
    """The Sets of one of tshark's messages, with their ids."""
    parts = [part for part in message.values() if isinstance(part, dict) and "cflow.flowset_id" in part]
    return [(int(part["cflow.flowset_id"]), part) for part in parts]
