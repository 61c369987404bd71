"""The traffic generator sends exactly what its plan foresees, for each of its options."""

from __future__ import annotations

import json
import re
import socket
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from lab.namespaces import Lab, LabError, Link, command
from lab.programs import Capture, wait_until
from lab.traffic import Traffic, cpus

pytestmark = pytest.mark.e2e(tools=("make",))

PLANS = {
    "default": Traffic(),
    "round-robin": Traffic(flows=70, packets=1000),
    "random": Traffic(flows=50, packets=1000, order="random", seed=7),
    "burst": Traffic(flows=9, packets=1000, order="burst", burst=10),
    "sizes": Traffic(flows=10, packets=1000, size=(60, 1514), seed=3),
    "tcp": Traffic(flows=10, packets=100, protocol="tcp", tcp_flags=0x1C2, dst_port=443),
    "tcp6": Traffic(flows=10, packets=100, protocol="tcp", ipv6=True),
    "udp6": Traffic(flows=10, packets=100, ipv6=True, size=(62, 200)),
    "icmp": Traffic(flows=10, packets=100, protocol="icmp"),
    "icmp6": Traffic(flows=10, packets=100, protocol="icmp", ipv6=True),
    "vlan": Traffic(flows=10, packets=100, vlan=100, priority=5),
    "qinq": Traffic(flows=10, packets=100, vlan=100, qinq=4000, protocol="tcp", ipv6=True),
    "tos": Traffic(flows=2, tos=0xB8, ttl=3),
    "tos6": Traffic(flows=2, tos=0xB8, ttl=3, ipv6=True),
    "macs": Traffic(flows=2, src_mac="02:00:00:00:0a:01", dst_mac="02:00:00:00:0a:02"),
    "flow base": Traffic(flows=5, packets=50, flow_base=65534),
    "flow base 6": Traffic(flows=5, packets=50, flow_base=0x12345678, ipv6=True),
}

FIELDS = [
    *("eth.src", "eth.dst", "ieee8021ad.id", "ieee8021ad.priority", "vlan.id", "vlan.priority"),
    *("ip.src", "ip.dst", "ip.len", "ip.ttl", "ip.dsfield", "ip.checksum.status"),
    *("ipv6.src", "ipv6.dst", "ipv6.plen", "ipv6.hlim", "ipv6.tclass"),
    *("tcp.srcport", "tcp.dstport", "tcp.flags", "tcp.checksum.status"),
    *("udp.srcport", "udp.dstport", "udp.checksum.status"),
    *("icmp.type", "icmp.checksum.status", "icmpv6.type", "icmpv6.checksum.status"),
]


def dissect(pcap: Path) -> list[dict[str, str]]:
    """The packets of a capture file as tshark's fields; of a repeated one (VLAN tags) the first."""
    checks = [word for name in ("ip", "tcp", "udp") for word in ("-o", f"{name}.check_checksum:TRUE")]
    columns = [word for name in FIELDS for word in ("-e", name)]
    # Port 9 has a dissector of its own in some versions: only the headers matter here.
    argv = ["tshark", "-r", str(pcap), "-n", *checks, "-T", "fields", "-E", "occurrence=f", *columns]
    return [dict(zip(FIELDS, line.split("\t"))) for line in command(argv).stdout.splitlines()]


def first(packet: dict[str, str], *names: str) -> str:
    return next((packet[name] for name in names if packet[name]), "0")


def key(packet: dict[str, str]) -> tuple[str, ...]:
    """What must be equal in the packets of a flow, as text."""
    return (
        first(packet, "ip.src", "ipv6.src"),
        first(packet, "ip.dst", "ipv6.dst"),
        first(packet, "tcp.srcport", "udp.srcport"),
        first(packet, "tcp.dstport", "udp.dstport"),
        first(packet, "icmp.type", "icmpv6.type"),
        first(packet, "ieee8021ad.id", "vlan.id"),
        packet["vlan.id"] if packet["ieee8021ad.id"] else "",
        first(packet, "ieee8021ad.priority", "vlan.priority"),
        str(int(first(packet, "tcp.flags"), 16)),
        str(int(first(packet, "ip.dsfield", "ipv6.tclass"), 16)),
        first(packet, "ip.ttl", "ipv6.hlim"),
        packet["eth.src"],
        packet["eth.dst"],
    )


def ip_octets(packet: dict[str, str]) -> int:
    return int(packet["ip.len"]) if packet["ip.len"] else int(packet["ipv6.plen"]) + 40


def address(raw: npt.NDArray[np.uint8]) -> str:
    mapped = bytes(raw[:12]) == bytes(10) + b"\xff\xff"
    return (
        socket.inet_ntop(socket.AF_INET, bytes(raw[12:])) if mapped else socket.inet_ntop(socket.AF_INET6, bytes(raw))
    )


def expected_keys(plan: Traffic, link: Link) -> dict[tuple[str, ...], tuple[int, ...]]:
    """Key to packets, octets, least and greatest IP length, from the rows that ``Traffic.expected`` foresees."""
    after_ports = ("dot1q_priority", "tcp_flags", "tos", "min_ttl")
    inner = "" if plan.qinq is None else str(plan.qinq)
    found: dict[tuple[str, ...], tuple[int, ...]] = {}
    for row in plan.expected(src_mac=link.mac):
        is_icmp = int(row["protocol"]) in (1, 58)
        ports = (row["src_port"], 0, row["dst_port"] >> 8) if is_icmp else (row["src_port"], row["dst_port"], 0)
        numbers = [str(number) for number in (*ports, row["vlan_id"])]
        numbers += [inner, *(str(row[name]) for name in after_ports)]
        macs = (bytes(row["src_mac"]).hex(":"), bytes(row["dst_mac"]).hex(":"))
        row_key = (address(row["src_addr"]), address(row["dst_addr"]), *numbers, *macs)
        found[row_key] = tuple(int(row[name]) for name in ("packets", "octets", "min_ip_length", "max_ip_length"))
    return found


@pytest.mark.e2e(tools=("tcpdump", "tshark"))
@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS.keys())
def test_generator_sends_what_the_plan_foresees(lab: Lab, tmp_path: Path, plan: Traffic) -> None:
    near, far = lab.pair()
    with Capture(lab, far.ns, tmp_path, far.name) as capture:
        sent = plan.send(lab, near)
        capture.stop()
    counters = lab.counters(far)

    seen: dict[tuple[str, ...], list[int]] = {}
    for packet in dissect(capture.pcap):
        seen.setdefault(key(packet), []).append(ip_octets(packet))
        statuses = {packet[name] for name in FIELDS if name.endswith("checksum.status")}
        assert statuses <= {"", "1"}, f"a checksum is wrong: {packet}"
        assert statuses != {""}
    counted = {k: (len(octets), sum(octets), min(octets), max(octets)) for k, octets in seen.items()}
    assert counted == expected_keys(plan, near)
    assert (counters["rx_packets"], counters["rx_bytes"]) == (sent.packets, sent.frame_octets)
    assert (sent.flows, sent.packets) == (len(counted), sum(count[0] for count in counted.values()))
    assert (sent.wire_packets, sent.ip_octets) == (sent.packets, sum(count[1] for count in counted.values()))


@pytest.mark.parametrize("order", ["round-robin", "random", "burst"])
def test_generator_counts_hold_with_threads_on_several_cpus(lab: Lab, order: str) -> None:
    near, far = lab.pair()
    plan = Traffic(flows=3000, packets=100_000, order=order, size=(60, 120))
    sent = plan.send(lab, near, threads=4, cpus=cpus())
    rows = plan.expected()
    assert sent.packets == 100_000 == rows["packets"].sum()
    assert (sent.flows, sent.ip_octets) == (len(rows), rows["octets"].sum())
    assert lab.counters(far)["rx_packets"] == 100_000
    assert lab.counters(far)["rx_bytes"] == sent.frame_octets


@pytest.mark.parametrize("ipv6", [False, True], ids=["ipv4", "ipv6"])
def test_super_packets_become_the_foreseen_segments(lab: Lab, ipv6: bool) -> None:
    near, far = lab.pair()
    plan = Traffic(flows=4, packets=40, protocol="tcp", ipv6=ipv6, gso=1400, size=(80, 60000))
    whole = plan.send(lab, near)
    assert lab.counters(far)["rx_packets"] == whole.packets == 40
    # Without offloads at the sending end the kernel cuts them before they leave: now the far end sees the wire.
    lab.offload(near, False, "tso", "gso", "tx")
    before = lab.counters(far)
    cut = plan.send(lab, near)
    after = lab.counters(far)
    assert cut.wire_packets == after["rx_packets"] - before["rx_packets"]
    assert cut.frame_octets == after["rx_bytes"] - before["rx_bytes"]
    assert cut.wire_packets == plan.expected()["packets"].sum() > 40
    assert cut.ip_octets == plan.expected()["octets"].sum()


@pytest.mark.e2e(tools=("tc",))
def test_frames_pass_the_egress_hook(lab: Lab) -> None:
    near, _ = lab.pair()
    lab.run(near.ns, ["tc", "qdisc", "add", "dev", near.name, "clsact"])
    # A filter that never matches, in classic BPF: without any filter the qdisc does not count.
    lab.run(near.ns, ["tc", "filter", "add", "dev", near.name, "egress", "bpf", "bytecode", "1,6 0 0 0,"])
    sent = Traffic(flows=10, packets=1000).send(lab, near)
    shown = lab.run(near.ns, ["tc", "-s", "-j", "qdisc", "show", "dev", near.name, "clsact"]).stdout
    assert json.loads(shown)[0]["packets"] == sent.packets + sent.retries


def test_rate_is_kept(lab: Lab) -> None:
    near, _ = lab.pair()
    sent = Traffic(packets=2000, flows=10).send(lab, near, rate=10_000, threads=2)
    assert sent.seconds > 0.19
    assert sent.packets_per_second < 10_500


def test_generator_stopped_by_a_signal_tells_what_it_sent(lab: Lab) -> None:
    near, far = lab.pair()
    running = Traffic(flows=10, packets=10**9).start(lab, near, rate=20_000)
    wait_until(lambda: lab.counters(far)["rx_packets"] > 100, "some packets arrive")
    sent = running.stop()
    assert 100 < sent.packets == lab.counters(far)["rx_packets"]
    assert sent.flows == 10


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (["--size", "20"], "the headers of these frames alone take 42 bytes"),
        (["--qinq", "5"], "--qinq needs --vlan"),
        (["--gso", "1400"], "--gso needs --protocol tcp"),
        (["--order", "odd"], "--order: expected round-robin, random or burst"),
        (["--packets", "-1"], "packets: expected a number from 1"),
        (["--dst-mac", "02:00"], "dst-mac: expected a MAC address"),
        (["--flow-base", "4294967295", "--flows", "2"], "must not exceed 4294967296"),
    ],
)
def test_generator_names_a_wrong_option(lab: Lab, change: list[str], words: str) -> None:
    program = Traffic().argv("lo")[0]
    with pytest.raises(LabError, match=re.escape(words)):
        lab.run(lab.namespace(), [program, "--interface", "lo", *change])


def test_generator_names_an_interface_that_is_not_there(lab: Lab) -> None:
    with pytest.raises(LabError, match="eth77: cannot read the MAC address"):
        lab.run(lab.namespace(), Traffic().argv("eth77"))


def test_counters_are_those_of_the_kernel(lab: Lab) -> None:
    near, far = lab.pair()
    Traffic(packets=17, size=100).send(lab, near)
    for link, way in ((near, "tx"), (far, "rx")):
        entry = json.loads(lab.run(link.ns, ["ip", "-j", "-s", "link", "show", link.name]).stdout)[0]
        assert entry["stats64"][way]["packets"] == lab.counters(link)[f"{way}_packets"] == 17
        assert lab.counters(link)[f"{way}_bytes"] == 1700
