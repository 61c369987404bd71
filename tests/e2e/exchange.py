"""One run of the daemon that feeds every collector at once: each protocol, each template that comes with netobs.

What each shows is compared, by tests/e2e/test_interop_*.py, with what ``netobs listen`` reads of the same Data Records.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from lab.adapters import NODE, Adapter, Listen
from lab.collectors import IpfixDump, Nfcapd, Tshark, UdpSink
from lab.daemon import KEPT, Account, Counts, Daemon, Table, configuration
from lab.namespaces import Lab
from lab.pmacct import Nfacctd
from lab.programs import WAIT_S
from lab.traffic import REPOSITORY
from netobs.collector.decode import Decoder
from netobs.encode.options.choice import OptionsChoice
from netobs.encode.template.file import load
from tests.e2e.conversations import ALIAS, Flow, send, send_often
from tests.e2e.interop import ONCE, Columns, carried, differences, elements, not_compared, only_ipv4, templates, totals
from tests.e2e.test_exact import like_ethernet

TEMPLATES = tuple(sorted(path.stem for path in (REPOSITORY / "templates").glob("*.toml")))
REFERENCE = "reference"
DAEMON_NICE = -10
"""All collectors read at once while it ends, which it has to do in four seconds."""
PACKETS_IF_SAMPLED = 2000
"""In each flow: one flow in 500 million has no packet among those that are taken, 1 in 100."""
_PROTOCOLS: Mapping[str, tuple[str, ...]] = {
    "nfdump": ("ipfix", "netflow9", "netflow5"),
    "pmacct": ("ipfix", "netflow9", "netflow5"),
    "ipfixdump": ("ipfix",),
    "ipfix": ("ipfix", "netflow9"),
    "netflow": ("ipfix", "netflow9", "netflow5"),
    "netflume": ("ipfix", "netflow9", "netflow5"),
    NODE: ("netflow9", "netflow5"),
}
COLLECTORS = ("listen", "nfdump", "pmacct", "tshark", "ipfixdump", "ipfix", "netflow", "netflume", NODE)
_FIRST_PORT = 5001
_OVER_TCP = {("ipfixdump", "ipfix"), ("ipfix", "ipfix")}
_SHARED: Mapping[str, tuple[str, ...]] = {"tshark": ("nfdump", "ipfixdump"), "listen": ()}
"""tshark reads what these get; ``netobs listen`` is always there."""
_CUSTOM = (
    *(
        "flowDirection",
        "flowEndReason",
        "ipVersion",
        "ethernetType",
        "vlanId",
        "postVlanId",
        "minimumTTL",
        "maximumTTL",
    ),
    *("minimumIpTotalLength", "maximumIpTotalLength", "icmpTypeCodeIPv4", "icmpTypeCodeIPv6", "icmpTypeIPv4"),
    *("icmpCodeIPv4", "icmpTypeIPv6", "icmpCodeIPv6", "ipDiffServCodePoint", "ipPrecedence", "dot1qVlanId"),
    *("dot1qPriority", "flowDurationMilliseconds", "observationPointId"),
)


class Stream(NamedTuple):
    """What a collector gets. NetFlow v5 has no templates: ``template`` then is only a word."""

    collector: str
    protocol: str
    template: str

    @property
    def transport(self) -> str:
        return "tcp" if self[:2] in _OVER_TCP else "udp"

    @property
    def name(self) -> str:
        return "-".join(self)

    @property
    def options(self) -> OptionsChoice:
        return load(self.template).options

    def says_rate(self, sampling: int) -> bool:
        """Whether the collector is told the rate ``sampling``; the header of v5 has no mode for 1 in 1."""
        return sampling > 1 if self.protocol == "netflow5" else load(self.template).says_sampling

    def table(self, port: int) -> Table:
        keys = {"name": self.name, "port": port, "protocol": self.protocol, "transport": self.transport}
        return keys if self.protocol == "netflow5" else {**keys, "template": self.template}


def streams(collector: str) -> list[Stream]:
    """All that ``collector`` is to read."""
    return [
        Stream(each, protocol, template)
        for each in _SHARED.get(collector, (collector,))
        for protocol in _PROTOCOLS[each]
        for template in (TEMPLATES if protocol != "netflow5" else ("default",))
    ]


@dataclass(repr=False)
class Exchange:
    """What was sent and what came of it; ``flows`` as ``netobs listen`` reads them, by Information Element.

    ``shown`` is what each collector has of its stream, ``said`` what it complains of. ``options`` are the options
    records, by protocol and what a template file chooses. ``sent`` has no times if sampled.
    """

    sampling: int
    sent: list[Flow] = field(default_factory=list)
    flows: list[Flow] = field(default_factory=list)
    options: dict[tuple[str, OptionsChoice], list[Flow]] = field(default_factory=dict)
    shown: dict[tuple[str, Stream], list[Any]] = field(default_factory=dict)
    said: dict[tuple[str, Stream], Any] = field(default_factory=dict)
    account: Account = field(default_factory=Account)
    log: str = ""

    def check(
        self,
        collector: str,
        stream: Stream,
        shown: Iterable[tuple[str, Mapping[str, Any]]],
        columns: Columns,
        not_shown: Collection[str] = (),
        scales: bool = False,
    ) -> None:
        """Compare all fields. ``shown``: source address and fields of each flow. ``scales``: multiplies by the rate."""
        flows = only_ipv4(self.flows) if stream.protocol == "netflow5" else self.flows
        rate = self.sampling if stream.says_rate(self.sampling) else 0
        scale = max(rate, 1) if scales else 1
        expected = [carried(flow, stream.protocol, stream.template, rate, scale) for flow in flows]
        assert self.account.sent[stream.name] == totals(flows)
        assert self.unencodable(stream.name) == totals([flow for flow in self.flows if flow not in flows])
        wrong = differences(expected, shown, columns)
        assert not wrong, "\n".join([f"{len(wrong)} differences", *wrong[:10]])
        assert not_compared(elements(stream.protocol, stream.template), columns, not_shown) == set()

    def check_options(self, stream: Stream, shown: Sequence[Mapping[str, Any]]) -> None:
        """Compare options records; ``shown`` by Information Element, without the Observation Domain."""
        sent = self.options[stream.protocol, stream.options]
        assert _sorted(shown) == _sorted(sent), f"shown {_sorted(shown)}, sent {_sorted(sent)}"

    def unencodable(self, name: str) -> Counts:
        """What the daemon says that the protocol of collector ``name`` has no place for."""
        pattern = rf'"{name}" .*: no template for (\d+) flows, (\d+) packets, (\d+) octets$'
        found = re.search(pattern, self.log, re.MULTILINE)
        return Counts(*map(int, found.groups())) if found else Counts()


def run(directory: Path, sampling: int, wanted: Collection[str]) -> Exchange:
    """All conversations past a daemon that exports to the collectors ``wanted``."""
    made = {each: None for name in wanted for each in _SHARED.get(name, (name,))}
    ports = {stream: _FIRST_PORT + at for at, stream in enumerate(s for name in made for s in streams(name))}
    found = Exchange(sampling)
    with Lab() as lab, contextlib.ExitStack() as stack:
        near, far = lab.pair()
        like_ethernet(lab, far.ns)
        lab.run(far.ns, ["ip", "link", "set", far.name, "alias", ALIAS])
        start = stack.enter_context
        reference = start(Listen(lab, far.ns, directory, _FIRST_PORT - 1))
        collectors = _Collectors(lab, far.ns, directory, ports, stack, "tshark" in wanted)
        sinks = [(name, protocol, start(UdpSink(far.ns, 0))) for name, protocol in _choices()]
        tables = [stream.table(port) for stream, port in ports.items()]
        tables += [
            {"name": f"options-{protocol}-{name}", "port": sink.port, "protocol": protocol, "template": name}
            for name, protocol, sink in sinks
        ]
        tables.append({"name": REFERENCE, "port": reference.port, "transport": "tcp", "template": "full"})
        with Daemon(lab, far.ns, directory, configuration({**ONCE, "sampling": sampling}, KEPT, tables)) as daemon:
            os.setpriority(os.PRIO_PROCESS, daemon.process.pid, DAEMON_NICE)
            if sampling > 1:
                found.sent = send_often(lab, near, far, PACKETS_IF_SAMPLED)
            else:
                found.sent = send(lab, near, far, directory)
            found.account = daemon.finish(within=WAIT_S)
        found.log = daemon.log
        found.flows = [_by_element(flow) for flow in reference.flows(found.account.sent[REFERENCE].flows)]
        found.options = {(protocol, load(name).options): _options(sink) for name, protocol, sink in sinks}
        collectors.read(found)
    return found


class _Collectors:
    """Those of one run, started."""

    def __init__(
        self, lab: Lab, ns: str, directory: Path, ports: dict[Stream, int], stack: contextlib.ExitStack, tshark: bool
    ) -> None:
        self.ports = ports
        of = {name: [stream for stream in ports if stream.collector == name] for name in _PROTOCOLS}
        start = stack.enter_context
        self.nfcapd = {each: start(Nfcapd(lab, ns, directory, ports[each])) for each in of["nfdump"]}
        self.nfacctd = {each: start(_nfacctd(lab, ns, directory, ports[each], each)) for each in of["pmacct"]}
        self.dumps = {each: start(IpfixDump(lab, ns, directory, ports[each])) for each in of["ipfixdump"]}
        self.adapters = [
            start(Adapter(lab, ns, directory, name, [f"{each.transport}:{ports[each]}" for each in of[name]]))
            for name in ("ipfix", "netflow", "netflume", NODE)
            if of[name]
        ]
        self.tshark = None
        if tshark:
            places = [f"{each.transport}:{port}" for each, port in ports.items() if each.collector in _SHARED["tshark"]]
            self.tshark = start(Tshark(lab, ns, directory, int(places[0][4:]), places[0][:3], more=places[1:]))

    def read(self, found: Exchange) -> None:
        """End all and put what they have into ``found``."""
        for stream, nfacctd in self.nfacctd.items():
            nfacctd.wait_for(found.account.sent[stream.name].flows)
            nfacctd.end()
        for stream, nfcapd in self.nfcapd.items():
            found.shown["nfdump", stream] = nfcapd.flows()
            found.said["nfdump", stream] = (nfcapd.summary(), nfcapd.log)
        for stream, dump in self.dumps.items():
            found.shown["ipfixdump", stream] = dump.records()
            found.said["ipfixdump", stream] = (dump.faults(), dump.stats())
        for adapter in self.adapters:
            lines = adapter.lines()
            for stream, port in self.ports.items():
                if stream.collector == adapter.name:
                    found.shown[adapter.name, stream] = [line for line in lines[port] if "record" in line]
                    found.said[adapter.name, stream] = [line["error"] for line in lines[port] if "error" in line]
        for stream, nfacctd in self.nfacctd.items():
            found.shown["pmacct", stream] = nfacctd.flows(found.account.sent[stream.name].flows)
            found.said["pmacct", stream] = nfacctd.warnings()
        if self.tshark:
            received, experts = self.tshark.received(), self.tshark.experts()
            for stream, port in self.ports.items():
                if stream.collector in _SHARED["tshark"]:
                    found.shown["tshark", stream] = [message for to, message in received if to == port]
                    found.said["tshark", stream] = experts


def _nfacctd(lab: Lab, ns: str, directory: Path, port: int, stream: Stream) -> Nfacctd:
    settings = {"nfacctd_renormalize": "true"}
    return Nfacctd(lab, ns, directory, port, elements=custom_elements(stream), settings=settings)


def custom_elements(stream: Stream) -> dict[str, tuple[int, int]]:
    """Elements that pmacct has no primitive for, or uses in another one: it prints them if it is told id and octets."""
    fields = {f.element.name: f for each in templates(stream.protocol, stream.template) for f in each.fields}
    return {name: (fields[name].element.id, fields[name].octets) for name in _CUSTOM if name in fields}


def _sorted(records: Sequence[Mapping[str, Any]]) -> list[list[tuple[str, Any]]]:
    """Comparable. The number of the Exporting Process is each collector's own."""
    return sorted(sorted({**each, **dict.fromkeys(each.keys() & {"exportingProcessId"})}.items()) for each in records)


def flags_octets(stream: Stream) -> int:
    """How long tcpControlBits is; v5 has a padding octet before it."""
    if stream.protocol == "netflow5":
        return 1
    fields = templates(stream.protocol, stream.template)[0].fields
    return next(field.octets for field in fields if field.element.name == "tcpControlBits")


def _choices() -> list[tuple[str, str]]:
    """A template for each choice of options records, in both protocols that have any."""
    names = {load(name).options: name for name in TEMPLATES}.values()
    return [(name, protocol) for name in names for protocol in ("ipfix", "netflow9")]


def _options(sink: UdpSink) -> list[Flow]:
    """The options records that came, by Information Element, without the Observation Domain."""
    decoder = Decoder()
    records = [record for message in sink.drain() for record in decoder.decode(message).options]
    scopes = {"observationDomainId", "scopeSystem"}
    return [{name: value for name, value in each.items() if name not in scopes} for each in records]


def _by_element(flow: Mapping[str, Any]) -> Flow:
    """A flow as ``netobs listen`` prints it, times in ns, without what it says of the exporter."""
    exporter = {"exporterIPv4Address", "observationDomainId", "exportProtocolVersion"}
    flow = {name: value for name, value in flow.items() if name not in exporter}
    times = {name: nanoseconds(flow[name]) for name in ("flowStartMilliseconds", "flowEndMilliseconds")}
    return {**flow, **times}


def nanoseconds(text: str) -> int:
    """ISO 8601 in milliseconds, as ns since 1970."""
    return round(datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp() * 1000) * 1_000_000
