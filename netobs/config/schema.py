"""The configuration: a frozen dataclass for each stage, which is also the table of its keys.

A field holds the kind of its value, the default as an operator writes it, and one line of description. The key has
the name of the field without the suffix of its unit: ``eviction_interval`` becomes ``eviction_interval_ns``.
Parsing, defaults and documentation all come from here.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import MISSING, Field, dataclass, field, fields
from typing import Any, NamedTuple

from netobs.base import words
from netobs.config.addresses import (
    Endpoint,
    Host,
    IPNetwork,
    Listen,
    ListenAddress,
    LocalAddress,
    Prefixes,
    ServerName,
)
from netobs.config.groups import CollectorNames
from netobs.config.namespaces import NamespacePatterns, NamespaceSelector
from netobs.config.selector import InterfaceSelector, Selectors
from netobs.config.text import toml_text
from netobs.config.values import (
    AbsoluteFilePath,
    Boolean,
    Choice,
    Duration,
    FilePath,
    FilterTexts,
    FolderPath,
    Integer,
    Kind,
    Size,
    Text,
    Volume,
)

FLOW_TABLES = Choice(words.FLOW_TABLES)
PROTOCOLS = Choice(tuple(words.PROTOCOLS))
MAX_NETFLOW5_SAMPLING = (1 << 14) - 1  # its header has 14 bits for it
TRANSPORTS = Choice(("udp", "tcp", "tls"))
POLICIES = Choice(("replicate", "failover", "balance"))
TLS_PORT = 4740  # RFC 7011, section 10.1
PACKET_FORMATS = Choice(words.PACKET_FORMATS)
DIRECTIONS = Choice(("ingress", "egress", "both"))


def setting(default: Any, kind: Kind, description: str) -> Any:
    """A dataclass field for a key with ``default`` in TOML notation."""
    return field(default=kind.parse(default), metadata={"kind": kind, "default": default, "description": description})


@dataclass(frozen=True)
class CaptureConfig:
    """[capture]: which packets to measure, and how the kernel holds their flows."""

    interfaces: tuple[str, ...] = setting(["*"], Selectors(), "interfaces to observe: names, globs or /regex/")
    exclude: tuple[str, ...] = setting(
        ["lo"], Selectors(may_be_empty=True), "interfaces to leave out of the matches of the globs and /regex/ above"
    )
    direction: str = setting("both", DIRECTIONS, "which packets of an interface to measure")
    sampling: int = setting(1, Integer(1, 65535), "measure one packet in N; 1 = every packet")
    flow_table: str = setting("percpu_array", FLOW_TABLES, "how the kernel holds flows")
    max_flows: int = setting(65536, Integer(64, 16_777_216), "flows that the kernel holds between two evictions")
    eviction_interval_ns: int = setting("5s", Duration("100ms", "1h"), "how often netobs takes flows out of the kernel")
    precise_time: bool = setting(
        False, Boolean(), "true: flow times to 1 us or better, at a cost for each packet; false: to one kernel tick"
    )
    attach: str = setting(
        "auto",
        Choice(words.ATTACH_METHODS),
        "kernel hook; auto = tcx where the kernel has it (6.6 and later), else tc; tc for some of many interfaces",
    )
    anchor: str = setting(
        "first", Choice(("first", "last")), "place among the programs of others on the hook: before or behind them"
    )
    netns: tuple[str, ...] = setting(
        [], NamespacePatterns(), "network namespaces to observe as well: names or globs; NAMESPACE/INTERFACE for a part"
    )
    pin: str = setting(
        "",
        FolderPath(),
        'folder in a BPF file system, such as "/sys/fs/bpf/netobs", that keeps programs and flows over a restart where '
        'there is no systemd; "" = none',
    )

    drop_capabilities: bool = setting(
        False,
        Boolean(),
        "true: gives up for good, after the start, the capabilities that nothing configured needs any more; some keys "
        "then take effect at the next start only",
    )

    @property
    def selector(self) -> InterfaceSelector:
        """Selects the observed interfaces."""
        return InterfaceSelector(self.interfaces, self.exclude)

    @property
    def namespaces(self) -> NamespaceSelector:
        """Selects the observed network namespaces."""
        return NamespaceSelector(self.netns, self.exclude)


@dataclass(frozen=True)
class MeteringConfig:
    """[metering]: when a Flow Record is due."""

    active_timeout_ns: int = setting(
        "60s", Duration("0s", "24h"), "export a continuing flow at least this often; 0s = at each eviction"
    )
    idle_timeout_ns: int = setting(
        "15s", Duration("100ms", "24h"), "export a flow that has had no packet for this long"
    )
    max_flows: int = setting(1_000_000, Integer(64, 100_000_000), "flows that the flow cache holds")


@dataclass(frozen=True)
class CollectorConfig:
    """[[collector]]: where and how to export. One table for each collector; only ``host`` is required."""

    host: str = field(metadata={"kind": Host(), "description": "name or address of the collector, IPv4 or IPv6"})
    name: str = field(
        default="",
        metadata={"kind": Text("a name", 64), "description": "name of the collector in the log; its host if absent"},
    )
    port: int = setting(4739, Integer(1, 65535), f"port of the collector; {TLS_PORT} if absent over TLS")
    protocol: str = setting("ipfix", PROTOCOLS, "export protocol")
    transport: str = setting("udp", TRANSPORTS, "transport protocol")
    template: str = setting("default", Text("a template name or path"), "template: its name, or the path of its file")
    observation_domain: int = setting(
        0, Integer(0, 0xFFFF_FFFF), "Observation Domain ID; 0 = a stable number made from the machine and the file"
    )
    max_message_size: int = setting(
        1400, Integer(512, 8972), "longest Message over UDP, in bytes of UDP payload; must fit the path MTU"
    )
    template_refresh_ns: int = setting("60s", Duration("1s", "24h"), "how often netobs repeats templates over UDP")
    template_refresh_messages: int = setting(
        0,
        Integer(0, 1_000_000),
        "also repeat templates over UDP after this many Messages with flows; 0 = only by time",
    )
    options_refresh_ns: int = setting(
        "60s", Duration("1s", "24h"), "how often netobs repeats options records (interface names, sampling, ...)"
    )
    source: str = setting("", LocalAddress(), 'local address to send from; "" = the kernel chooses')
    queue_max_bytes: int = setting(
        "64MiB", Size("64KiB", "1GiB"), "most memory for flows that wait to be sent to the collector"
    )
    queue_max_age_ns: int = setting("10m", Duration("1s", "24h"), "how long flows may wait to be sent to the collector")
    spool: str = setting(
        "", FolderPath(), 'folder for flows while the collector is down; "" = they wait in memory only'
    )
    spool_max_bytes: int = setting("1GiB", Size("4MiB", "1024GiB"), "most disk space for the spool of a collector")
    spool_rate_bytes: int = setting(
        "8MiB", Size("64KiB", "1GiB"), "how much of the spool is sent per second, beside the new flows"
    )
    reconnect_max_ns: int = setting(
        "60s", Duration("1s", "1h"), "longest pause between two attempts to connect over TCP or TLS"
    )
    ca: str = setting(
        "", FilePath(), "PEM file of the authorities for the collector's certificate over TLS; empty = the system's"
    )
    cert: str = setting("", FilePath(), 'PEM file with the certificate (and its chain) to show over TLS; "" = none')
    key: str = setting("", FilePath(), "PEM file with the private key of cert, not encrypted")
    server_name: str = setting("", ServerName(), 'name that the certificate of the collector must have; "" = its host')

    def __post_init__(self) -> None:
        if not self.name:
            object.__setattr__(self, "name", self.host)

    @property
    def endpoint(self) -> Endpoint:
        """Where the collector listens."""
        return Endpoint(self.host, self.port)


@dataclass(frozen=True)
class GroupConfig:
    """[[group]]: how several collectors share the flows. Collectors in no group get all of them."""

    name: str = field(metadata={"kind": Text("a name", 64), "description": "name of the group in the log"})
    collectors: tuple[str, ...] = field(
        metadata={"kind": CollectorNames(), "description": "names of the collectors in the group, in order"}
    )
    policy: str = setting(
        "replicate", POLICIES, "every collector gets every flow, or the first that is up, or each its share"
    )


@dataclass(frozen=True)
class PacketCaptureConfig:
    """[packet_capture]: the packet capture agent."""

    enabled: bool = setting(False, Boolean(), "stream selected packets as pcap")
    listen: Endpoint = setting(  # noqa: RUF009  a tuple
        "/run/netobs/capture.sock", Listen(), "Unix socket to listen on, or address and port"
    )
    filter: tuple[str, ...] = setting(
        "tcp,80",
        FilterTexts(),
        "packets to stream, unless a client asks for others; one filter, or a list of several",
    )
    filter_names: bool = setting(
        False, Boolean(), "clients' filters may name hosts and networks, which the name service is asked for"
    )
    interfaces: tuple[str, ...] = setting(
        [], Selectors(may_be_empty=True), "interfaces to capture on, as [capture] interfaces; [] = the same as there"
    )
    exclude: tuple[str, ...] = setting(
        [], Selectors(may_be_empty=True), "interfaces to leave out of interfaces; ignored if that is []"
    )
    direction: str = setting("both", DIRECTIONS, "which packets of an interface to capture")
    snaplen: int = setting(262_144, Integer(64, 262_144), "most octets of a packet to stream")
    format: str = setting("pcap", PACKET_FORMATS, "format of a stream, unless a client asks for the other")
    buffer_bytes: int = setting(
        "4MiB", Size("64KiB", "1GiB"), "kernel memory for packets that netobs has not read yet, for each CPU"
    )
    allow: tuple[IPNetwork, ...] = setting([], Prefixes(), "where clients may connect from; [] = anywhere")
    cert: str = setting("", FilePath(), 'PEM file with the certificate (and its chain) to show; "" = no TLS')
    key: str = setting("", FilePath(), "PEM file with the private key of cert, not encrypted")
    client_ca: str = setting(
        "", FilePath(), 'PEM file of the authorities for clients; "" = clients show no certificate'
    )
    max_clients: int = setting(8, Integer(1, 31), "clients at the same time")
    max_duration_ns: int = setting("0s", Duration("0s", "24h"), "how long a client is served; 0s = no limit")
    max_bytes: int = setting("0MiB", Volume("0MiB", "1024GiB"), "how much a client gets; 0MiB = no limit")
    max_rate_bytes: int = setting("0MiB", Size("0MiB", "64GiB"), "most bytes per second for a client; 0MiB = no limit")
    queue_max_bytes: int = setting(
        "16MiB", Size("256KiB", "1GiB"), "most memory for packets that wait to be sent to one client"
    )
    recorder_ns: int = setting(
        "0s", Duration("0s", "24h"), "keep packets in memory for this long (flight recorder); 0s = keep none"
    )
    recorder_max_bytes: int = setting("64MiB", Size("1MiB", "64GiB"), "most memory for recorded packets")

    @property
    def selector(self) -> InterfaceSelector:
        """Selects the captured interfaces; see ``netobs.config.packet_capture.effective``."""
        return InterfaceSelector(self.interfaces, self.exclude)


@dataclass(frozen=True)
class MetricsConfig:
    """[metrics]: the daemon's numbers for Prometheus."""

    listen: Endpoint = setting(  # noqa: RUF009  a tuple
        "", ListenAddress(), 'where Prometheus gets metrics by HTTP: address and port; "" = nowhere'
    )
    textfile: str = setting("", AbsoluteFilePath(), 'file with the metrics for node_exporter; "" = none')

    @property
    def are_on(self) -> bool:
        """Whether anybody gets metrics."""
        return bool(self.listen.host or self.textfile)


@dataclass(frozen=True)
class InsightConfig:
    """[insight]: how well connections go."""

    tcp: bool = setting(False, Boolean(), "round-trip times, retransmissions and more of TCP connections")

    @property
    def groups(self) -> tuple[str, ...]:
        """What the programs have to measure: a part of ``metrics.INSIGHT_GROUPS``."""
        return ("tcp",) if self.tcp else ()


@dataclass(frozen=True)
class LogConfig:
    """[log]."""

    level: str = setting("info", Choice(("debug", "info", "warning", "error")), "least severe messages to log")


@dataclass(frozen=True)
class Config:
    """The whole configuration; ``path`` is the file that it comes from."""

    capture: CaptureConfig
    metering: MeteringConfig
    collectors: tuple[CollectorConfig, ...]
    packet_capture: PacketCaptureConfig
    metrics: MetricsConfig
    insight: InsightConfig
    log: LogConfig
    path: str = ""
    groups: tuple[GroupConfig, ...] = ()
    checksum: int = field(default=0, compare=False)
    """As ``loader.checksum``."""


TABLES: dict[str, type[Any]] = {
    "capture": CaptureConfig,
    "metering": MeteringConfig,
    "collector": CollectorConfig,
    "group": GroupConfig,
    "packet_capture": PacketCaptureConfig,
    "metrics": MetricsConfig,
    "insight": InsightConfig,
    "log": LogConfig,
}
"""The tables of the file."""

ARRAYS = ("collector", "group")
"""Those that are arrays of tables: [[collector]], once for each."""


class Key(NamedTuple):
    """A key of the file. ``default`` is in TOML notation; it is empty where there is no fixed default."""

    table: str
    name: str
    field_name: str
    kind: Kind
    default: str
    description: str
    required: bool


@functools.cache
def keys(table: str) -> dict[str, Key]:
    """The keys of a table by name, in the order of documentation."""
    return {entry.name: entry for entry in (_key(table, item) for item in fields(TABLES[table]))}


def all_keys() -> Iterator[Key]:
    """Each key of each table, for manual pages and tests."""
    for table in TABLES:
        yield from keys(table).values()


def _key(table: str, item: Field[Any]) -> Key:
    kind: Kind = item.metadata["kind"]
    name = item.name[: -len(kind.suffix)] if kind.suffix else item.name
    default = toml_text(item.metadata["default"]) if "default" in item.metadata else ""
    return Key(table, name, item.name, kind, default, item.metadata["description"], item.default is MISSING)
