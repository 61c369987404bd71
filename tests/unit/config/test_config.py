"""What right files give: defaults, every key, units, the sample file, the documentation of the keys."""

from __future__ import annotations

import re
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path

import pytest

from netobs.base.clock import NS_PER_S
from netobs.config import (
    CaptureConfig,
    CollectorConfig,
    Config,
    Endpoint,
    GroupConfig,
    InsightConfig,
    LogConfig,
    MeteringConfig,
    MetricsConfig,
    PacketCaptureConfig,
    all_keys,
    load,
    machine_domain,
    parse,
    warnings_of,
)
from netobs.config.schema import TABLES, keys
from netobs.config.values import BadValue, Duration, Size

SAMPLE = Path(__file__).parents[3] / "conf" / "netobs.toml"
MINIMAL = '[[collector]]\nhost = "192.0.2.10"\n'
FULL = """
[capture]
interfaces = ["eth0", "bond*", "/^tap[0-9a-f-]+$/"]
exclude = ["bond9", "/^tap0/"]
direction = "ingress"
sampling = 100
flow_table = "percpu_hash"
max_flows = 16_777_216
eviction_interval = "500ms"
precise_time = true
attach = "tc"
anchor = "last"
drop_capabilities = true
pin = "/sys/fs/bpf/netobs"
netns = ["qrouter-*/q[rg]-*", "ovnmeta-1"]
[metering]
active_timeout = "2m"
idle_timeout = "1h"
max_flows = 64
[[collector]]
name = "main"
host = "2001:db8::10"
port = 2055
protocol = "ipfix"
transport = "tcp"
template = "/etc/netobs/templates/mine.toml"
observation_domain = 4294967295
max_message_size = 512
template_refresh = "10m"
template_refresh_messages = 20
options_refresh = "90s"
source = "2001:db8::1"
queue_max = "64KiB"
queue_max_age = "1h"
spool = "/var/spool/netobs"
spool_max = "2GiB"
spool_rate = "1MiB"
reconnect_max = "1s"
[[collector]]
host = "flows.example"
transport = "tls"
ca = "/etc/netobs/ca.pem"
cert = "/etc/netobs/cert.pem"
key = "/etc/netobs/key.pem"
server_name = "collector.example"
[[group]]
name = "site"
collectors = ["main", "flows.example"]
policy = "balance"
[packet_capture]
enabled = false
listen = "[::1]:1"
filter = ["udp,53", "host 192.0.2.1"]
filter_names = true
interfaces = ["eth*"]
exclude = ["eth1"]
direction = "ingress"
snaplen = 96
format = "pcapng"
buffer = "1MiB"
allow = ["192.0.2.0/24", "2001:db8::1"]
cert = "/etc/netobs/cert.pem"
key = "/etc/netobs/key.pem"
client_ca = "/etc/netobs/ca.pem"
max_clients = 2
max_duration = "10m"
max_bytes = "1GiB"
max_rate = "10MiB"
queue_max = "1MiB"
recorder = "30s"
recorder_max = "8MiB"
[metrics]
listen = "[::1]:9469"
textfile = "/var/lib/prometheus/node-exporter/netobs.prom"
[insight]
tcp = true

[log]
level = "debug"
"""


def test_a_collector_needs_only_its_host() -> None:
    assert parse(MINIMAL, "F") == Config(
        CaptureConfig(),
        MeteringConfig(),
        (CollectorConfig("192.0.2.10"),),
        PacketCaptureConfig(),
        MetricsConfig(),
        InsightConfig(),
        LogConfig(),
        "F",
    )


def test_the_defaults() -> None:
    config = parse(MINIMAL, "F")
    assert config.capture == CaptureConfig(
        interfaces=("*",),
        exclude=("lo",),
        direction="both",
        sampling=1,
        flow_table="percpu_array",
        max_flows=65536,
        eviction_interval_ns=5 * NS_PER_S,
        precise_time=False,
        attach="auto",
    )
    assert config.metering == MeteringConfig(60 * NS_PER_S, 15 * NS_PER_S, 1_000_000)
    assert config.collectors[0] == CollectorConfig(
        host="192.0.2.10",
        name="192.0.2.10",
        port=4739,
        protocol="ipfix",
        transport="udp",
        template="default",
        observation_domain=0,
        max_message_size=1400,
        template_refresh_ns=60 * NS_PER_S,
        template_refresh_messages=0,
        options_refresh_ns=60 * NS_PER_S,
        source="",
        queue_max_bytes=64 << 20,
        queue_max_age_ns=600 * NS_PER_S,
        spool="",
        spool_max_bytes=1 << 30,
        spool_rate_bytes=8 << 20,
        reconnect_max_ns=60 * NS_PER_S,
        ca="",
        cert="",
        key="",
        server_name="",
    )
    assert config.packet_capture == PacketCaptureConfig(
        enabled=False, listen=Endpoint("/run/netobs/capture.sock"), filter=("tcp,80",),
        filter_names=False, snaplen=262144, format="pcap",
        interfaces=(), exclude=(), direction="both", buffer_bytes=4 << 20, allow=(), cert="", key="", client_ca="",
        max_clients=8, max_duration_ns=0, max_bytes=0, max_rate_bytes=0, queue_max_bytes=16 << 20, recorder_ns=0,
        recorder_max_bytes=64 << 20,
    )  # fmt: skip
    assert config.log == LogConfig("info")


def test_every_key_can_be_given() -> None:
    named = [line.partition(" = ")[0] for line in FULL.splitlines() if " = " in line]
    assert {entry.name for entry in all_keys()} == set(named)
    config = parse(FULL, "F")
    assert config.capture == CaptureConfig(
        ("eth0", "bond*", "/^tap[0-9a-f-]+$/"),
        ("bond9", "/^tap0/"),
        "ingress",
        100,
        "percpu_hash",
        1 << 24,
        NS_PER_S // 2,
        True,
        "tc",
        "last",
        ("qrouter-*/q[rg]-*", "ovnmeta-1"),
        "/sys/fs/bpf/netobs",
        True,
    )
    assert config.metering == MeteringConfig(120 * NS_PER_S, 3600 * NS_PER_S, 64)
    assert config.collectors == (
        CollectorConfig(
            host="2001:db8::10",
            name="main",
            port=2055,
            protocol="ipfix",
            transport="tcp",
            template="/etc/netobs/templates/mine.toml",
            observation_domain=0xFFFFFFFF,
            max_message_size=512,
            template_refresh_ns=600 * NS_PER_S,
            template_refresh_messages=20,
            options_refresh_ns=90 * NS_PER_S,
            source="2001:db8::1",
            queue_max_bytes=1 << 16,
            queue_max_age_ns=3600 * NS_PER_S,
            spool="/var/spool/netobs",
            spool_max_bytes=2 << 30,
            spool_rate_bytes=1 << 20,
            reconnect_max_ns=NS_PER_S,
        ),
        CollectorConfig(
            host="flows.example",
            port=4740,
            transport="tls",
            ca="/etc/netobs/ca.pem",
            cert="/etc/netobs/cert.pem",
            key="/etc/netobs/key.pem",
            server_name="collector.example",
        ),
    )
    assert config.packet_capture == PacketCaptureConfig(
        False, Endpoint("::1", 1), ("udp,53", "host 192.0.2.1"), True, ("eth*",), ("eth1",), "ingress", 96, "pcapng",
        1 << 20,
        (IPv4Network("192.0.2.0/24"), IPv6Network("2001:db8::1/128")), "/etc/netobs/cert.pem", "/etc/netobs/key.pem",
        "/etc/netobs/ca.pem", 2, 600 * NS_PER_S, 1 << 30, 10 << 20, 1 << 20, 30 * NS_PER_S, 8 << 20,
    )  # fmt: skip
    assert config.log == LogConfig("debug")
    assert config.groups == (GroupConfig("site", ("main", "flows.example"), "balance"),)
    assert str(config.packet_capture.listen) == "[::1]:1"
    assert config.insight == InsightConfig(tcp=True)
    assert config.metrics == MetricsConfig(Endpoint("::1", 9469), "/var/lib/prometheus/node-exporter/netobs.prom")
    assert str(config.collectors[1].endpoint) == "flows.example:4740"


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        ("0s", 0),
        ("0ms", 0),
        ("500ms", NS_PER_S // 2),
        ("5s", 5 * NS_PER_S),
        ("1m", 60 * NS_PER_S),
        ("24h", 86_400 * NS_PER_S),
    ],
)
def test_units_of_time(text: str, nanoseconds: int) -> None:
    assert Duration("0s", "24h").parse(text) == nanoseconds


@pytest.mark.parametrize(("text", "size"), [("1KiB", 1024), ("3MiB", 3 << 20), ("1GiB", 1 << 30)])
def test_units_of_size(text: str, size: int) -> None:
    assert Size("1KiB", "1GiB").parse(text) == size


@pytest.mark.parametrize("text", ["5", "s", "5S", "5 s", "5s ", "1.5s", "+5s", "5sec", "1h30m", "٣s", "9" * 5000 + "s"])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(BadValue, match="one of ms, s, m, h"):
        Duration("0s", "24h").parse(text)


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "flows.example.",
        "a_b.example",
        "1a",
        "4739.example",
        "192.0.2.1",
        "::1",
        "fe80::1%eth0",
        "a" * 63,
        "239.1.2.3",
    ],
)
def test_hosts(host: str) -> None:
    assert parse(f'[[collector]]\nhost = "{host}"', "F").collectors[0].host == host


def test_collectors_without_a_name_have_names_that_differ() -> None:
    text = "".join(f'[[collector]]\nhost = "a"\nport = {port}\n' for port in (1, 2)) + '[[collector]]\nhost = "b"\n'
    assert [each.name for each in parse(text, "F").collectors] == ["a", "collector 2", "b"]
    named_like_a_host = '[[collector]]\nhost = "a"\n[[collector]]\nhost = "b"\nname = "a"\n'
    assert [each.name for each in parse(named_like_a_host, "F").collectors] == ["collector 1", "a"]


def test_a_tls_collector_needs_only_its_host_too() -> None:
    tls = '[[collector]]\nhost = "a"\ntransport = "tls"\n'
    assert parse(tls, "F").collectors == (CollectorConfig("a", port=4740, transport="tls"),)
    assert parse(f"{tls}port = 4739", "F").collectors[0].port == 4739


def test_a_group_replicates_unless_it_says_otherwise() -> None:
    text = f'{MINIMAL}[[collector]]\nhost = "b"\n[[group]]\nname = "all"\ncollectors = ["b", "192.0.2.10"]'
    assert parse(text, "F").groups == (GroupConfig("all", ("b", "192.0.2.10"), "replicate"),)
    assert parse(MINIMAL, "F").groups == ()


def test_the_same_host_may_take_flows_on_two_ports_or_transports() -> None:
    collector = '[[collector]]\nhost = "a"\n'
    text = f'{collector}{collector}port = 1\n{collector}transport = "tcp"'
    assert [(each.port, each.transport) for each in parse(text, "F").collectors] == [
        (4739, "udp"),
        (1, "udp"),
        (4739, "tcp"),
    ]


def test_the_loopback_can_be_asked_for_by_name() -> None:
    assert parse(f'[capture]\ninterfaces = ["lo"]\n{MINIMAL}', "F").capture.selector.matches("lo")
    assert not parse(MINIMAL, "F").capture.selector.matches("lo")


B = '[[collector]]\nhost = "b"\n'


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("", []),
        ('[metering]\nidle_timeout = "4s"', ["idle_timeout is shorter"]),
        ('[metering]\nactive_timeout = "1s"', ["active_timeout is shorter"]),
        ('[metering]\nactive_timeout = "0s"', []),
        ('[metering]\nactive_timeout = "0s"\nidle_timeout = "1s"', ["[metering] idle_timeout has no effect with"]),
        ('[metering]\nidle_timeout = "61s"', ["[metering] idle_timeout is longer than active_timeout"]),
        ('[[collector]]\nhost = "b"\nmax_message_size = 1473', ['[collector "b"] max_message_size 1473']),
        (f'{B}max_message_size = 1473\ntransport = "tcp"', ["max_message_size has no effect over TCP and TLS"]),
        (
            f'{B}template_refresh = "1s"\ntemplate_refresh_messages = 9\ntransport = "tls"',
            [
                "template_refresh has no effect over TCP and TLS",
                "template_refresh_messages has no effect over TCP and TLS",
            ],
        ),
        (
            f'{B}protocol = "netflow5"\ntemplate = "full"\noptions_refresh = "1s"\ntemplate_refresh = "1s"',
            ["template has no effect with netflow5", "template_refresh has no", "options_refresh has no"],
        ),
        (f'{B}spool_rate = "1MiB"', ['F: [collector "b"] spool_rate has no effect without spool']),
        (f'{B}spool_max = "4MiB"', ['F: [collector "b"] spool_max has no effect without spool']),
        (f'{B}spool_rate = "1MiB"\nspool_max = "4MiB"\nspool = "/s"', []),
        (f'{B}spool_rate = "8MiB"', []),  # what it is without it
        ('[[collector]]\nhost = "224.0.0.1"', ['[collector "224.0.0.1"] host: 224.0.0.1 is a multicast group']),
        ('[[collector]]\nhost = "ff02::1%lo"', ["is a multicast group"]),
        ('[capture]\ninterfaces = ["eth0"]\nexclude = ["docker*"]', ["[capture] exclude has no effect beside names"]),
        ('[capture]\ninterfaces = ["eth0"]\nexclude = ["*"]', ["[capture] exclude has no effect beside names"]),
        ('[capture]\ninterfaces = ["eth0", "tap*"]\nexclude = ["*"]', ['exclude: "*" leaves out all but the names']),
        (
            '[capture]\ninterfaces = ["eth*"]\nexclude = ["lo", "eth9"]',
            ['exclude: "lo" has no effect: interfaces does not'],
        ),
        ('[capture]\ninterfaces = ["eth*"]', []),
        ('[capture]\nexclude = ["docker*"]', []),
        ('[capture]\nflow_table = "ringbuf"\nmax_flows = 64', ["[capture] max_flows has no effect with ringbuf"]),
        (
            '[packet_capture]\nenabled = true\nexclude = ["a"]\nrecorder_max = "1MiB"',
            [
                "[packet_capture] exclude has no effect without interfaces",
                "recorder_max has no effect without recorder",
            ],
        ),
        ('[packet_capture]\nexclude = ["a"]\nrecorder_max = "1MiB"', []),
        ('[metrics]\ntextfile = "/a/netobs"', ["[metrics] textfile: node_exporter reads only files whose names end"]),
        ('[metrics]\ntextfile = "/a/netobs.prom"', []),
    ],
)
def test_warnings(lines: str, said: list[str]) -> None:
    found = warnings_of(parse(f"{MINIMAL}{lines}", "F"))
    assert [part in warning for part, warning in zip(said, found)] == [True] * len(said)
    assert len(found) == len(said)


def test_load_reads_a_file_and_gives_the_machine_s_observation_domain(tmp_path: Path) -> None:
    file = tmp_path / "netobs.toml"
    file.write_bytes(
        b"\xef\xbb\xbf" + f"{MINIMAL}[[collector]]\nhost = 'b'\nobservation_domain = 7\n".replace("\n", "\r\n").encode()
    )
    config = load(str(file))
    assert config.path == str(file)
    assert [each.observation_domain for each in config.collectors] == [machine_domain(conf=file), 7]


def test_the_sample_file_says_the_defaults() -> None:
    local = CollectorConfig("127.0.0.1")
    expected = Config(
        CaptureConfig(),
        MeteringConfig(),
        (local,),
        PacketCaptureConfig(),
        MetricsConfig(),
        InsightConfig(),
        LogConfig(),
        "F",
    )
    assert parse(SAMPLE.read_text("utf-8"), "F") == expected


def test_the_sample_file_shows_each_key_with_its_default_once() -> None:
    shown: dict[str, list[tuple[str, str]]] = {table: [] for table in TABLES}
    table = ""
    for line in SAMPLE.read_text("utf-8").splitlines():
        if heading := re.fullmatch(r"(?:# )?\[+(\w+)\]+", line):
            table = heading[1]
        elif setting := re.fullmatch(r"(?:# )?([a-z_]+) = (\S.*)", line):
            shown[table].append((setting[1], setting[2]))
    for table, settings in shown.items():
        assert [name for name, _ in settings] == list(keys(table))
        defaults = [(name, key.default) for name, key in keys(table).items() if key.default]
        assert [setting for setting in settings if keys(table)[setting[0]].default] == defaults


def test_each_key_documents_itself() -> None:
    listing = list(all_keys())
    assert len(listing) == len({(entry.table, entry.name) for entry in listing})
    required = [("collector", "host"), ("group", "name"), ("group", "collectors")]
    assert [(entry.table, entry.name) for entry in listing if entry.required] == required
    without_default = [(entry.table, entry.name) for entry in listing if not entry.default]
    assert without_default == [required[0], ("collector", "name"), *required[1:]]
    assert all(entry.description and entry.kind.expected for entry in listing)
    interval = keys("capture")["eviction_interval"]
    assert (interval.field_name, interval.default) == ("eviction_interval_ns", '"5s"')
