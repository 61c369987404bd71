"""NetFlow v9 and v5 of the real daemon, as nfcapd and tshark read them: each flow, no fault."""

from __future__ import annotations

from datetime import datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from lab.collectors import Nfcapd, Tshark
from lab.daemon import KEPT, Account, Daemon, configuration
from lab.namespaces import Lab, Link
from lab.traffic import Traffic
from tests.e2e.test_exact import like_ethernet

pytestmark = pytest.mark.e2e(tools=("make", "nfcapd", "nfdump", "tcpdump", "tshark"))

NO_FLAGS = "........"
PLANS = {
    "udp": Traffic(flows=1000, packets=50_000, size=(60, 1514), order="random", tos=0xB8),
    "tcp": Traffic(flows=300, packets=20_000, size=(60, 1514), protocol="tcp", tcp_flags=0xD1),
    "icmp": Traffic(flows=100, packets=1000, protocol="icmp"),
    "vlan": Traffic(flows=100, packets=1000, vlan=100, size=(64, 1518)),
    "tcp over ipv6": Traffic(flows=300, packets=20_000, size=(74, 1514), protocol="tcp", ipv6=True, tcp_flags=0xD1),
}
IPV4_ONLY = {name: plan for name, plan in PLANS.items() if not plan.ipv6}


def exported(lab: Lab, far: Link, near: Link, directory: Path, plan: Traffic, protocol: str) -> Account:
    """Send ``plan`` past a daemon that exports with ``protocol``."""
    with Daemon(lab, far.ns, directory, configuration(metering=KEPT, collectors=[{"protocol": protocol}])) as daemon:
        plan.send(lab, near)
        return daemon.finish()


def described(flow: dict[str, Any]) -> tuple[Any, ...]:
    """A flow in nfdump's words."""
    family = "6" if "src6_addr" in flow else "4"
    address = (flow[f"src{family}_addr"], flow[f"dst{family}_addr"])
    ports = (flow["src_port"], flow["dst_port"]) if flow["proto"] in (6, 17) else (0, flow["icmp_type"])
    counts = (flow["in_packets"], flow["in_bytes"])
    return (*address, flow["proto"], *ports, flow.get("tcp_flags", NO_FLAGS), flow["src_tos"],
            flow["input_snmp"], flow["output_snmp"], *counts)  # fmt: skip


def foreseen(plan: Traffic, far: Link) -> list[tuple[Any, ...]]:
    """The flows of ``plan`` in nfdump's words."""
    flows = []
    for row in plan.expected(ifindex=far.ifindex):
        source, destination = (ip_address(bytes(row[name])) for name in ("src_addr", "dst_addr"))
        address = [str(getattr(ip, "ipv4_mapped", None) or ip) for ip in (source, destination)]
        flags = "".join(name if row["tcp_flags"] >> bit & 1 else "." for bit, name in enumerate("FSRPAUEC"))[::-1]
        ports = (int(row["src_port"]), int(row["dst_port"]) >> (8 if int(row["protocol"]) in (1, 58) else 0))
        counts = (int(row["packets"]), int(row["octets"]))
        flows.append((*address, int(row["protocol"]), *ports, flags, int(row["tos"]), far.ifindex, 0, *counts))
    return flows


def check_times(flows: list[dict[str, Any]], begin: datetime) -> None:
    """Flows are not before ``begin`` nor after their Message: sysUptime and the time of day belong together."""
    tick = timedelta(milliseconds=11)  # the coarse clock is that much behind
    now = datetime.now()  # noqa: DTZ005  nfdump prints local time
    for flow in flows:
        first, last = (datetime.fromisoformat(flow[name]) for name in ("first", "last"))
        assert begin - tick <= first <= last <= now


@pytest.mark.parametrize(
    ("protocol", "plan"),
    [("netflow9", plan) for plan in PLANS.values()] + [("netflow5", plan) for plan in IPV4_ONLY.values()],
    ids=[f"v9 {name}" for name in PLANS] + [f"v5 {name}" for name in IPV4_ONLY],
)
def test_each_flow_is_right(lab: Lab, tmp_path: Path, protocol: str, plan: Traffic) -> None:
    near, far = lab.pair()
    like_ethernet(lab, far.ns)
    begin = datetime.now()  # noqa: DTZ005  nfdump prints local time
    with Nfcapd(lab, far.ns, tmp_path) as collector, Tshark(lab, far.ns, tmp_path) as stream:
        account = exported(lab, far, near, tmp_path, plan, protocol)
        flows, summary = collector.flows(), collector.summary()
        assert stream.experts() == []
        assert {int(message["cflow.version"]) for message in stream.messages()} == {9 if protocol == "netflow9" else 5}
    assert sorted(map(described, flows)) == sorted(foreseen(plan, far))
    assert summary.sequence_errors == 0
    assert "Sequence Errors: 0" in collector.log
    assert account.is_balanced()
    check_times(flows, begin)


def test_netflow5_counts_what_it_cannot_say(lab: Lab, tmp_path: Path) -> None:
    near, far = lab.pair()
    six = Traffic(flows=50, packets=500, ipv6=True)
    with Nfcapd(lab, far.ns, tmp_path) as collector:
        config = configuration(metering=KEPT, collectors=[{"protocol": "netflow5"}])
        with Daemon(lab, far.ns, tmp_path, config) as daemon:
            six.send(lab, near)
            daemon.finish()
        assert collector.flows() == []
    assert 'collector "127.0.0.1"' in daemon.log
    assert "no template for 50 flows, 500 packets" in daemon.log
