"""Each mistake an operator can make in a key or a collector, and the exact line that names it."""

from __future__ import annotations

import pytest

from netobs.base.errors import ConfigError
from netobs.config import parse

COLLECTOR = '[[collector]]\nhost = "192.0.2.10"\n'
TIME = 'a time from "{}" to "{}" (a whole number and one of ms, s, m, h, in quotes)'
INTERVAL = TIME.format("100ms", "1h")
SIZE = 'a size from "64KiB" to "1GiB" (a whole number and one of KiB, MiB, GiB, in quotes)'
HOST = "a host name, an IPv4 or an IPv6 address"
FILTER = 'a filter such as "tcp,80" or "host 192.0.2.1", or a list of them, of at most 1000 characters'
PREFIXES = 'a list of addresses and prefixes such as ["192.0.2.0/24", "2001:db8::1"]'
METRICS = 'an address and a port from 1 to 65535 such as "127.0.0.1:9469", or ""'
LISTEN = (
    'the path of a socket such as "/run/netobs/capture.sock", or an address and a port from 1 to 65535 such as '
    '"127.0.0.1:9990"'
)
DECIMAL = "an IPv4 address has four decimal numbers:"
NO_SOURCE = "a host cannot send from a multicast or broadcast address"
LOCAL = 'an IPv4 or IPv6 address of this machine, or "" to let the kernel choose'


def problems(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse(text, "F")
    assert all(problem.startswith("F: ") for problem in caught.value.problems)
    return [problem[len("F: ") :] for problem in caught.value.problems]


# Table, line, what is said behind "F: [table] ".
KEY_MISTAKES = [
    ("capture", "samplng = 1", 'samplng: unknown key; did you mean "sampling"?'),
    ("capture", "Direction = 'both'", 'Direction: unknown key; did you mean "direction"?'),
    ("capture", "idle_timeout = '15s'", "idle_timeout: unknown key; it belongs below [metering]"),
    ("log", "colour = true", "colour: unknown key; the keys are level"),
    ("log", '"a\\nb" = true', r"a\nb: unknown key; the keys are level"),
    (
        "capture",
        'interfaces = "eth0"',
        'interfaces: expected a list of interface names, globs or /regex/, at least one, got "eth0"; write ["eth0"]',
    ),
    (
        "capture",
        "interfaces = []",
        "interfaces: expected a list of interface names, globs or /regex/, at least one, got []",
    ),
    ("capture", "exclude = 1", "exclude: expected a list of interface names, globs or /regex/, got 1"),
    ("capture", "interfaces = [1]", "interfaces: entry 1: expected a name, a glob or /regex/, got 1"),
    ("capture", "interfaces = [['a']]", 'interfaces: entry 1: expected a name, a glob or /regex/, got ["a"]'),
    (
        "capture",
        "interfaces = ['']",
        'interfaces: entry 1, "": an interface name is not empty and has no "/", ":" or space',
    ),
    (
        "capture",
        "interfaces = ['eth0', 'my eth']",
        'interfaces: entry 2, "my eth": an interface name is not empty and has no "/", ":" or space',
    ),
    (
        "capture",
        "interfaces = ['sixteen-bytes-xx']",
        'interfaces: entry 1, "sixteen-bytes-xx": no interface can have this name (at most 15 bytes)',
    ),
    ("capture", "interfaces = ['tap[0-9']", 'interfaces: entry 1, "tap[0-9": bad glob: a "[" without its "]"'),
    (
        "capture",
        "interfaces = ['/^tap[0-9/']",
        'interfaces: entry 1, "/^tap[0-9/": bad regular expression: unterminated character set at character 6',
    ),
    ("capture", "exclude = ['/a*+)/']", 'exclude: entry 1, "/a*+)/": bad regular expression: '),
    ("capture", "interfaces = ['/^tap']", 'interfaces: entry 1, "/^tap": a regular expression stands between two "/"'),
    ("capture", "interfaces = ['//']", 'interfaces: entry 1, "//": a regular expression stands between two "/"'),
    (
        "capture",
        "interfaces = ['eth0']\nexclude = ['eth0']",
        'exclude: "eth0" is also in interfaces; remove it from one list',
    ),
    *(
        (
            "capture",
            f"exclude = ['lo', '{entry}']",
            f'exclude: "{entry}" leaves out every interface; remove it from the list',
        )
        for entry in ("*", "?*", "/./", "/^/", "/^.*$/")
    ),
    ("capture", "direction = 'in'", 'direction: expected one of "ingress", "egress", "both", got "in"'),
    (
        "capture",
        "direction = 'Both'",
        'direction: expected one of "ingress", "egress", "both", got "Both"; did you mean "both"?',
    ),
    ("capture", "direction = true", 'direction: expected one of "ingress", "egress", "both", got true'),
    ("capture", "sampling = 0", "sampling: expected an integer from 1 to 65535, got 0"),
    ("capture", "sampling = true", "sampling: expected an integer from 1 to 65535, got true"),
    ("capture", "sampling = 1.0", "sampling: expected an integer from 1 to 65535, got 1.0"),
    (
        "capture",
        "sampling = '100'",
        'sampling: expected an integer from 1 to 65535, got "100"; write it without quotes',
    ),
    (
        "capture",
        "sampling = 0x1" + "0" * 5000,
        "sampling: expected an integer from 1 to 65535, got an integer of more than 64 bits",
    ),
    (
        "capture",
        "flow_table = 'percpu_arry'",
        'flow_table: expected one of "percpu_array", "percpu_hash", "ringbuf", got "percpu_arry"; '
        'did you mean "percpu_array"?',
    ),
    (
        "capture",
        "flow_table = 'hash'",
        'flow_table: expected one of "percpu_array", "percpu_hash", "ringbuf", got "hash"',
    ),
    ("capture", "max_flows = 63", "max_flows: expected an integer from 64 to 16777216, got 63"),
    ("capture", "max_flows = 16777217", "max_flows: expected an integer from 64 to 16777216, got 16777217"),
    ("capture", "eviction_interval = 5", f"eviction_interval: expected {INTERVAL}, got 5"),
    ("capture", "eviction_interval = '5'", f'eviction_interval: expected {INTERVAL}, got "5"'),
    ("capture", "eviction_interval = '5 s'", f'eviction_interval: expected {INTERVAL}, got "5 s"'),
    ("capture", "eviction_interval = '-5s'", f'eviction_interval: expected {INTERVAL}, got "-5s"'),
    ("capture", "eviction_interval = '99ms'", f'eviction_interval: expected {INTERVAL}, got "99ms"'),
    ("capture", "eviction_interval = '0s'", f'eviction_interval: expected {INTERVAL}, got "0s"'),
    ("capture", "eviction_interval = '2h'", f'eviction_interval: expected {INTERVAL}, got "2h"'),
    ("capture", "eviction_interval = '5s\\n'", f'eviction_interval: expected {INTERVAL}, got "5s\\\\n"'),
    ("capture", 'eviction_interval = "5s\\n"', f'eviction_interval: expected {INTERVAL}, got "5s\\n"'),
    ("capture", "precise_time = 'no'", 'precise_time: expected true or false, got "no"'),
    ("capture", "precise_time = 0", "precise_time: expected true or false, got 0"),
    ("capture", "attach = 'xdp'", 'attach: expected one of "auto", "tcx", "tc", got "xdp"'),
    ("metering", "idle_timeout = '0s'", f'idle_timeout: expected {TIME.format("100ms", "24h")}, got "0s"'),
    ("metering", "active_timeout = 12:00:00", f"active_timeout: expected {TIME.format('0s', '24h')}, got 12:00:00"),
    ("metering", "max_flows = {}", "max_flows: expected an integer from 64 to 100000000, got a table"),
    ("packet_capture", "enabled = 1", "enabled: expected true or false, got 1"),
    (
        "packet_capture",
        "enabled = true\nlisten = '[::]:9990'",
        'listen: "::" is not a loopback address: anybody who reaches the port would see this host\'s packets; set '
        "allow to the prefixes of those who may, or cert and key for TLS",
    ),
    ("packet_capture", "listen = '9990'", f'listen: expected {LISTEN}, got "9990"'),
    ("packet_capture", "listen = '::1:9990'", f'listen: expected {LISTEN}, got "::1:9990"'),
    ("packet_capture", "listen = '[127.0.0.1]:9990'", f'listen: expected {LISTEN}, got "[127.0.0.1]:9990"'),
    ("packet_capture", "listen = '127.0.0.1:0'", f'listen: expected {LISTEN}, got "127.0.0.1:0"'),
    ("packet_capture", "listen = '127.0.0:80'", f'listen: expected {LISTEN}, got "127.0.0:80"'),
    ("metrics", "listen = '9469'", f'listen: expected {METRICS}, got "9469"'),
    ("metrics", "listen = '/run/a'", f'listen: expected {METRICS}, got "/run/a"'),
    ("metrics", "listen = 'a.example:9469'", f'listen: expected {METRICS}, got "a.example:9469"'),
    ("metrics", "listen = 'localhost:1'", f'listen: expected {METRICS}, got "localhost:1"; write "127.0.0.1:1"'),
    ("metrics", "textfile = 'a.prom'", 'textfile: expected the absolute path of a file, or "", got "a.prom"'),
    (
        "metrics",
        "textfile = '/a/'",
        'textfile: expected the absolute path of a file, or "", got "/a/"; this is a folder',
    ),
    ("packet_capture", "filter = 80", f"filter: expected {FILTER}, got 80"),
    ("packet_capture", "filter = []", f"filter: expected {FILTER}, got []"),
    ("packet_capture", "filter = ['tcp,80', 80]", f'filter: expected {FILTER}, got ["tcp,80", 80]'),
    ("packet_capture", 'filter = "tcp\\u0007"', f'filter: expected {FILTER}, got "tcp\\u0007"'),
    ("packet_capture", "snaplen = 0", "snaplen: expected an integer from 64 to 262144, got 0"),
    ("packet_capture", "format = 'erf'", 'format: expected one of "pcap", "pcapng", got "erf"'),
    ("packet_capture", "allow = '::/0'", f'allow: expected {PREFIXES}, got "::/0"; write ["::/0"]'),
    ("packet_capture", "allow = ['all']", 'allow: entry 1: "all" is neither an address nor a prefix'),
    ("packet_capture", "allow = [7]", "allow: entry 1: expected an address or a prefix, got 7"),
    (
        "packet_capture",
        "allow = ['::ffff:192.0.2.0/120']",
        'allow: entry 1: "::ffff:192.0.2.0/120" is IPv4; write "192.0.2.0/24"',
    ),
    (
        "packet_capture",
        "allow = ['192.0.2.1/24']",
        'allow: entry 1: "192.0.2.1/24" has bits beyond its prefix; write "192.0.2.0/24"',
    ),
    ("packet_capture", "cert = 'a.pem'", "key: missing; cert needs the key that belongs to it"),
    ("packet_capture", "key = 'a.pem'", "cert: missing; key needs the cert that belongs to it"),
    ("packet_capture", "client_ca = 'a.pem'", "client_ca: needs cert and key; without TLS clients show no certificate"),
    (
        "packet_capture",
        "interfaces = ['eth0']\nexclude = ['eth0']",
        'exclude: "eth0" is also in interfaces; remove it from one list',
    ),
    (
        "log",
        "level = 'warn'",
        'level: expected one of "debug", "info", "warning", "error", got "warn"; did you mean "warning"?',
    ),
]


@pytest.mark.parametrize(("table", "line", "said"), KEY_MISTAKES)
def test_a_wrong_key_is_named_with_what_was_expected_and_found(table: str, line: str, said: str) -> None:
    found = problems(f"[{table}]\n{line}\n{COLLECTOR}")
    assert len(found) == 1
    assert found[0] == f"[{table}] {said}" or (said.endswith(": ") and found[0].startswith(f"[{table}] {said}"))


# Lines of a collector, what is said behind "F: [collector 1] ".
COLLECTOR_MISTAKES = [
    ("", f"host: missing; expected {HOST}"),
    ("host = ''", f'host: expected {HOST}, got ""'),
    ("host = 1", f"host: expected {HOST}, got 1"),
    ("host = '10.0.0.300'", f'host: expected {HOST}, got "10.0.0.300"'),
    ("host = '10.0.0'", f'host: expected {HOST}, got "10.0.0"; {DECIMAL} write "10.0.0.0"'),
    ("host = '127.1'", f'host: expected {HOST}, got "127.1"; {DECIMAL} write "127.0.0.1"'),
    ("host = '2130706433'", f'host: expected {HOST}, got "2130706433"; {DECIMAL} write "127.0.0.1"'),
    ("host = '0x7f000001'", f'host: expected {HOST}, got "0x7f000001"; {DECIMAL} write "127.0.0.1"'),
    ("host = '0x7f.1'", f'host: expected {HOST}, got "0x7f.1"; {DECIMAL} write "127.0.0.1"'),
    ("host = '::ffff:0.0.0.0'", f'host: expected {HOST}, got "::ffff:0.0.0.0"; this address does not belong to a host'),
    ("host = '0.1.2.3'", f'host: expected {HOST}, got "0.1.2.3"; this address does not belong to a host'),
    (
        "host = '255.255.255.255'",
        f'host: expected {HOST}, got "255.255.255.255"; a broadcast address cannot be sent to; give the address of one '
        "collector",
    ),
    ("host = 'ff02::1%lo'\ntransport = 'tcp'", "host: a multicast group accepts no TCP connection; use udp"),
    (
        "host = '224.0.0.1'\ntransport = 'tls'",
        "host: a multicast group accepts no TLS connection; use udp",
    ),
    ("host = 'a'\nsource = '239.0.0.1'", f'source: expected {LOCAL}, got "239.0.0.1"; {NO_SOURCE}'),
    ("host = 'a'\nsource = 'ff02::1'", f'source: expected {LOCAL}, got "ff02::1"; {NO_SOURCE}'),
    ("host = 'a'\nsource = '255.255.255.255'", f'source: expected {LOCAL}, got "255.255.255.255"; {NO_SOURCE}'),
    ("host = 'a'\nsource = '127.1'", f'source: expected {LOCAL}, got "127.1"; write "127.0.0.1"'),
    (
        "host = 'a'\nsource = 'fe80::1'",
        f'source: expected {LOCAL}, got "fe80::1"; a link-local address needs its interface: "fe80::1%eth0"',
    ),
    ("host = '-a'", f'host: expected {HOST}, got "-a"'),
    ("host = 'a..b'", f'host: expected {HOST}, got "a..b"'),
    (f"host = '{'a' * 64}'", f'host: expected {HOST}, got "{"a" * 57}..."'),
    ("host = '[2001:db8::1]'", f'host: expected {HOST}, got "[2001:db8::1]"; write the address without brackets'),
    ("host = 'flows:2055'", f'host: expected {HOST}, got "flows:2055"; give the port by the key port'),
    ("host = 'udp://flows'", f'host: expected {HOST}, got "udp://flows"; give the host alone, without a scheme'),
    ("host = '0.0.0.0'", f'host: expected {HOST}, got "0.0.0.0"; this address does not belong to a host'),
    (
        "host = 'fe80::1'",
        f'host: expected {HOST}, got "fe80::1"; a link-local address needs its interface: "fe80::1%eth0"',
    ),
    ("host = 'a'\nport = 0", "port: expected an integer from 1 to 65535, got 0"),
    ("host = 'a'\nport = 65536", "port: expected an integer from 1 to 65535, got 65536"),
    ("host = 'a'\nport = 'x'", 'port: expected an integer from 1 to 65535, got "x"'),
    (
        "host = 'a'\nprotocol = 'netflow9'\ntransport = 'tcp'",
        'transport: netflow9 goes over UDP only; use "udp", or protocol = "ipfix"',
    ),
    (
        "host = 'a'\nprotocol = 'IPFIX'",
        'protocol: expected one of "ipfix", "netflow9", "netflow5", got "IPFIX"; did you mean "ipfix"?',
    ),
    ("host = 'a'\ntransport = 'sctp'", 'transport: expected one of "udp", "tcp", "tls", got "sctp"'),
    ("host = 'a'\ntransport = 'tls'\nca = 1", 'ca: expected the path of a file, or "", got 1'),
    ("host = 'a'\ntransport = 'tls'\ncert = 'c'", "key: missing; cert needs the key that belongs to it"),
    ("host = 'a'\ntransport = 'tls'\nkey = 'c'", "cert: missing; key needs the cert that belongs to it"),
    ("host = 'a'\nca = 'c'", 'ca: needs transport = "tls"; over udp nothing is encrypted'),
    (
        "host = 'a'\ntransport = 'tls'\nserver_name = 'a:1'",
        "server_name: expected a host name or an address as in the certificate of the collector, "
        'or "" for its host, got "a:1"',
    ),
    (
        "host = 'a'\ntemplate = ' '",
        'template: expected a template name or path of 1 to 255 printable characters, got " "',
    ),
    (
        "host = 'a'\nobservation_domain = -1",
        "observation_domain: expected an integer from 0 to 4294967295, got -1",
    ),
    ("host = 'a'\nmax_message_size = 511", "max_message_size: expected an integer from 512 to 8972, got 511"),
    ("host = 'a'\nmax_message_size = 8973", "max_message_size: expected an integer from 512 to 8972, got 8973"),
    ("host = 'a'\ntemplate_refresh = '0s'", f'template_refresh: expected {TIME.format("1s", "24h")}, got "0s"'),
    ("host = 'a'\nsource = 'eth0'", f'source: expected {LOCAL}, got "eth0"'),
    (
        "host = '192.0.2.1'\nsource = '::1'",
        "source: an IPv6 address cannot reach the host 192.0.2.1, which is IPv4",
    ),
    ("host = 'a'\nqueue_max = 16777216", f"queue_max: expected {SIZE}, got 16777216"),
    ("host = 'a'\nqueue_max = '16MB'", f'queue_max: expected {SIZE}, got "16MB"'),
    ("host = 'a'\nqueue_max = '2GiB'", f'queue_max: expected {SIZE}, got "2GiB"'),
    ("host = 'a'\nspool = 'spool'", 'spool: expected the absolute path of a folder, or "", got "spool"'),
    (
        "host = 'a'\nspool = '/s'\nprotocol = 'netflow9'",
        'spool: its files are IPFIX files, which netflow9 cannot send; use protocol = "ipfix", or no spool',
    ),
    ("host = 'a'\nreconnect_max = '2h'", f'reconnect_max: expected {TIME.format("1s", "1h")}, got "2h"'),
]


@pytest.mark.parametrize(("lines", "said"), COLLECTOR_MISTAKES)
def test_a_wrong_collector_is_named_by_number_and_name(lines: str, said: str) -> None:
    assert problems(f"[[collector]]\n{lines}") == [f"[collector 1] {said}"]
    assert problems(f"{COLLECTOR}[[collector]]\nname = 'b'\n{lines}") == [f'[collector 2 "b"] {said}']
