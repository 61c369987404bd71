"""What is sent is what the collector has: packets, octets and flows, to the last one."""

from __future__ import annotations

import os
from datetime import datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from lab.collectors import IpfixDump, Nfcapd, Tshark, UdpSink
from lab.daemon import KEPT, Daemon, configuration
from lab.namespaces import Lab, Link
from lab.traffic import Traffic
from netobs.collector.decode import Decoder

pytestmark = pytest.mark.e2e(tools=("make", "ethtool", "nfcapd", "nfdump", "tcpdump", "tshark"))

MESSAGE_BYTES = 1400  # the default of max_message_size
NO_FLAGS = "........"
LONG = os.environ.get("NETOBS_LONG") == "1"  # 5 million packets instead of 1.3 million

PLANS = {
    "1 flow": Traffic(flows=1, packets=1_000_000 if LONG else 400_000),
    "1,000 flows": Traffic(flows=1000, packets=2_000_000 if LONG else 400_000, size=(60, 1514), order="random"),
    "50,000 flows": Traffic(flows=50_000, packets=2_000_000 if LONG else 500_000, size=(60, 300)),
    "tcp": Traffic(flows=500, packets=20_000, protocol="tcp", size=(60, 1514), tcp_flags=0x0DB),
    "tcp over ipv6": Traffic(flows=500, packets=20_000, protocol="tcp", ipv6=True, size=(74, 1514)),
    "udp over ipv6": Traffic(flows=500, packets=20_000, ipv6=True, size=(62, 1514), order="burst"),
    "icmp": Traffic(flows=100, packets=20_000, protocol="icmp"),
    "vlan": Traffic(flows=500, packets=20_000, vlan=100, priority=5, size=(64, 1518)),
    "qinq": Traffic(flows=500, packets=20_000, vlan=100, qinq=4000, ipv6=True, protocol="tcp"),
    "super-packets": Traffic(flows=100, packets=20_000, protocol="tcp", gso=1448, size=(2000, 60_000)),
}


def sums(plan: Traffic) -> tuple[int, int, int]:
    """Flows, packets and octets that ``plan`` must give."""
    rows = plan.expected()
    return len(rows), int(rows["packets"].sum()), int(rows["octets"].sum())


def like_ethernet(lab: Lab, ns: str) -> None:
    """Let Messages pass the loopback one by one: a capture would show batches of them (UDP_SEGMENT) otherwise.

    The MTU makes tcpdump set aside less for each packet, so that it has room for more of them.
    """
    lab.offload(Link(ns, "lo", 1, ""), False, "tx-udp-segmentation", "gso", "gro", "tso")
    lab.run(ns, ["ip", "link", "set", "lo", "mtu", "1500"])


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS.keys())
def test_the_collector_has_exactly_what_was_sent(lab: Lab, tmp_path: Path, plan: Traffic) -> None:
    near, far = lab.pair()
    like_ethernet(lab, far.ns)
    with Nfcapd(lab, far.ns, tmp_path) as collector, Tshark(lab, far.ns, tmp_path) as stream:
        with Daemon(lab, far.ns, tmp_path, configuration(metering=KEPT)) as daemon:
            plan.send(lab, near)
            account = daemon.finish()
        summary = collector.summary()
        assert stream.experts() == []
        assert max(stream.sizes()) <= MESSAGE_BYTES
    assert account.seen.measured == sums(plan)[1:]
    assert account.is_balanced()
    assert summary.drops == 0
    assert (summary.flows, summary.packets, summary.octets) == sums(plan)
    assert summary.sequence_errors == 0


@pytest.mark.alone  # keeps all CPUs busy
@pytest.mark.parametrize("attach", ["tcx", "tc"])
def test_nothing_is_lost_while_flows_are_taken_out(lab: Lab, tmp_path: Path, attach: str) -> None:
    near, far = lab.pair()
    plan = Traffic(flows=5000, packets=1_000_000, order="random")
    config = configuration({"attach": attach, "eviction_interval": "100ms"}, {"active_timeout": "1s"})
    # Two CPUs are busy with traffic: what nfcapd has no time to read would be lost in its small buffer.
    with UdpSink(far.ns) as sink:
        with Daemon(lab, far.ns, tmp_path, config) as daemon:
            plan.send(lab, near)
            account = daemon.finish()
        decoder = Decoder()
        flows = [flow for message in sink.drain() for flow in decoder.decode(message).flows]
    assert account.seen.measured == sums(plan)[1:]
    assert account.is_balanced()
    assert account.ledger == {}
    counts = (sum(flow["packetDeltaCount"] for flow in flows), sum(flow["octetDeltaCount"] for flow in flows))
    assert counts == sums(plan)[1:]
    assert len(flows) >= plan.flows
    assert decoder.stats.lost_records == 0


def test_the_sending_side_counts_the_same(lab: Lab, tmp_path: Path, as_user: bool) -> None:
    near, _ = lab.pair()
    plan = Traffic(flows=1000, packets=100_000, vlan=7, size=200)
    with Nfcapd(lab, near.ns, tmp_path) as collector:
        with Daemon(lab, near.ns, tmp_path, configuration(metering=KEPT), as_user=as_user) as daemon:
            sent = plan.send(lab, near)
            account = daemon.finish()
        flows, summary = collector.flows(), collector.summary()
    packets = sent.packets + sent.retries  # what the interface had no room for has passed the hook before
    assert account.seen.measured == (packets, packets * (200 - 14 - 4))
    assert account.is_balanced()
    assert (summary.flows, summary.packets, summary.octets) == (plan.flows, *account.seen.measured)
    assert {(flow["direction"], flow["input_snmp"], flow["output_snmp"]) for flow in flows} == {(1, 0, near.ifindex)}
    assert {(flow["src_vlan"], flow["dst_vlan"]) for flow in flows} == {(0, 7)}


def described(flow: dict[str, Any]) -> tuple[Any, ...]:
    """A flow in nfdump's words."""
    family = "6" if "src6_addr" in flow else "4"
    address = (flow[f"src{family}_addr"], flow[f"dst{family}_addr"])
    ports = (flow["src_port"], flow["dst_port"]) if flow["proto"] in (6, 17) else (0, flow["icmp_type"])
    link = (flow["in_src_mac"], flow["in_dst_mac"], flow["src_vlan"], flow["input_snmp"], flow["direction"])
    counts = (flow["in_packets"], flow["in_bytes"])
    return (*address, flow["proto"], *ports, flow.get("tcp_flags", NO_FLAGS), flow["src_tos"], *link, *counts)


def foreseen(plan: Traffic, near: Link, far: Link) -> list[tuple[Any, ...]]:
    """The flows of ``plan`` in nfdump's words."""
    flows = []
    for row in plan.expected(ifindex=far.ifindex, src_mac=near.mac):
        source, destination = (ip_address(bytes(row[name])) for name in ("src_addr", "dst_addr"))
        address = [str(getattr(ip, "ipv4_mapped", None) or ip) for ip in (source, destination)]
        flags = "".join(name if row["tcp_flags"] >> bit & 1 else "." for bit, name in enumerate("FSRPAUEC"))[::-1]
        ports = (int(row["src_port"]), int(row["dst_port"]) >> (8 if int(row["protocol"]) in (1, 58) else 0))
        macs = (bytes(row["src_mac"]).hex(":"), bytes(row["dst_mac"]).hex(":"))
        link = (*macs, int(row["vlan_id"]), far.ifindex, 0)
        counts = (int(row["packets"]), int(row["octets"]))
        flows.append((*address, int(row["protocol"]), *ports, flags, int(row["tos"]), *link, *counts))
    return flows


@pytest.mark.parametrize(
    "plan",
    [
        Traffic(flows=1000, packets=100_000, size=(60, 1514), order="random", tos=0xB8),
        Traffic(flows=1000, packets=20_000, size=(78, 1518), protocol="tcp", ipv6=True, vlan=4094, tcp_flags=0xD1),
        Traffic(flows=100, packets=1000, protocol="icmp"),
    ],
    ids=["udp over ipv4", "tcp over ipv6 with vlan", "icmp"],
)
def test_each_flow_is_right(lab: Lab, tmp_path: Path, plan: Traffic) -> None:
    near, far = lab.pair()
    begin = datetime.now()  # noqa: DTZ005  nfdump prints local time
    with Nfcapd(lab, far.ns, tmp_path) as collector:
        with Daemon(lab, far.ns, tmp_path, configuration(metering=KEPT)) as daemon:
            plan.send(lab, near)
            daemon.finish()
        flows = collector.flows()
    assert sorted(map(described, flows)) == sorted(foreseen(plan, near, far))
    tick = timedelta(milliseconds=11)  # the coarse clock is that much behind
    for flow in flows:
        first, last, received = (datetime.fromisoformat(flow[name]) for name in ("first", "last", "received"))
        assert begin - tick <= first <= last <= received


@pytest.mark.e2e(tools=("socat", "ipfixDump"))
def test_a_strict_reader_has_no_fault_to_find_over_tcp(lab: Lab, tmp_path: Path) -> None:
    near, far = lab.pair()
    plans = [Traffic(flows=3000, packets=30_000, seed=1), Traffic(flows=2000, packets=10_000, ipv6=True)]
    with IpfixDump(lab, far.ns, tmp_path) as reader:
        config = configuration(metering=KEPT, collectors=[{"transport": "tcp"}])
        with Daemon(lab, far.ns, tmp_path, config) as daemon:
            for plan in plans:
                plan.send(lab, near)
            account = daemon.finish()
        assert reader.faults() == []
        flows = reader.flows()
        assert len(flows) == 5000
        _, data_records, template_records = reader.stats()
        # Beside flows: an interface, sampling, metering statistics, reliability of both processes; a Template for each.
        assert (data_records, template_records) == (5000 + 5, 2 + 5)
    packets, octets = (sum(int(record[name]) for record in flows) for name in ("packetDeltaCount", "octetDeltaCount"))
    assert (packets, octets) == account.seen.measured
    assert account.seen.packets == 40_000
    assert account.is_balanced()
