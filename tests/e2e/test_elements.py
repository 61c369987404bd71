"""A template of one's own, with names of interfaces and elements of an enterprise, as collectors read it."""

from __future__ import annotations

import json
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from lab.collectors import IpfixDump, Nfcapd, Tshark
from lab.daemon import KEPT, Daemon, configuration
from lab.namespaces import Lab, Link
from lab.pmacct import Nfacctd
from lab.programs import WAIT_S
from lab.traffic import Traffic
from tests.e2e.test_exact import like_ethernet
from tests.e2e.test_listen import listening

pytestmark = pytest.mark.e2e(tools=("make", "ethtool", "tcpdump", "tshark"))

ENTERPRISE = 32473  # that of examples: RFC 5612
ALIAS = "uplink to Zürich " + "x" * 237  # as long as the kernel lets it be: 255 octets, so 3 octets of length
TEMPLATE = f"""
[[template]]
id = 300
family = "ipv4"
elements = [
    "sourceIPv4Address", "destinationIPv4Address", "sourceTransportPort", "destinationTransportPort",
    "protocolIdentifier", "ipClassOfService", {{element = "tcpControlBits", octets = 1}},
    "interfaceName",
    "ingressInterface", "egressInterface", "flowDirection",
    {{name = "acmeInterface", enterprise = {ENTERPRISE}, id = 5, type = "unsigned64", value = "interfaceIndex"}},
    "interfaceDescription",
    {{name = "acmeName", enterprise = {ENTERPRISE}, id = 6, type = "string", value = "interfaceName", octets = 8}},
    "octetDeltaCount", "packetDeltaCount", "flowStartMilliseconds", "flowEndMilliseconds", "flowEndReason",
]
"""
TEMPLATES = ("own", "full")
PLAN = Traffic(flows=300, packets=6000, size=(60, 1514), order="random", protocol="tcp", tcp_flags=0x1B, tos=0x20)

Flow = tuple[Any, ...]


def host(lab: Lab) -> tuple[Link, Link]:
    """Two hosts; the interface that is measured has an alias."""
    near, far = lab.pair()
    like_ethernet(lab, far.ns)
    lab.run(far.ns, ["ip", "link", "set", far.name, "alias", ALIAS])
    return near, far


def run(lab: Lab, near: Link, far: Link, directory: Path, template: str = "own", **collector: Any) -> None:
    """Send the plan past a daemon with the template above, or with one that comes with netobs."""
    if template == "own":
        path = directory / "own.toml"
        path.write_text(TEMPLATE, encoding="utf-8")
        template = str(path)
    config = configuration(metering=KEPT, collectors=[{"template": template, "name": "main", **collector}])
    with Daemon(lab, far.ns, directory, config) as daemon:
        PLAN.send(lab, near)
        assert daemon.finish().is_balanced("main")


def foreseen(far: Link) -> list[Flow]:
    """Addresses, ports, interface, packets and octets of each flow."""
    return sorted(
        (*(str(ip_address(bytes(row[name])[12:])) for name in ("src_addr", "dst_addr")), int(row["src_port"]),
         int(row["dst_port"]), far.ifindex, int(row["packets"]), int(row["octets"]))
        for row in PLAN.expected(ifindex=far.ifindex)
    )  # fmt: skip


def by_name(flow: dict[str, Any]) -> Flow:
    """The same of a flow with IANA's names."""
    address = (flow["sourceIPv4Address"], flow["destinationIPv4Address"])
    numbers = ("sourceTransportPort", "destinationTransportPort", "ingressInterface", "packetDeltaCount",
               "octetDeltaCount")  # fmt: skip
    return (*address, *(int(flow[name]) for name in numbers))


@pytest.mark.e2e(tools=("socat", "ipfixDump"))
@pytest.mark.parametrize("template", TEMPLATES)
def test_ipfixdump_reads_it_over_tcp(lab: Lab, tmp_path: Path, template: str) -> None:
    near, far = host(lab)
    with IpfixDump(lab, far.ns, tmp_path) as collector:
        run(lab, near, far, tmp_path, template, transport="tcp")
        assert collector.faults() == []
        records = [record for record in collector.records() if "sourceIPv4Address" in record]
    assert sorted(map(by_name, records)) == foreseen(far)
    assert {record["interfaceName"] for record in records} == {f"(len: {len(far.name)}) {far.name}"}
    assert {record["interfaceDescription"] for record in records} == {f"(len: 255) {ALIAS}"}


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_netobs_listen_and_tshark_read_all_of_it(lab: Lab, tmp_path: Path, transport: str) -> None:
    near, far = host(lab)
    with Tshark(lab, far.ns, tmp_path, transport=transport) as stream:
        with listening(lab, far.ns, "--json", "--once", str(PLAN.flows)) as process:
            run(lab, near, far, tmp_path, transport=transport)
            output, said = process.communicate(timeout=WAIT_S)
        assert stream.experts() == []
        assert max(stream.sizes()) <= (1400 if transport == "udp" else 16_384)
        shown = json.dumps(stream.messages(), ensure_ascii=False)
    flows = [json.loads(line) for line in output.splitlines()]
    assert sorted(map(by_name, flows)) == foreseen(far)
    assert " 0 records lost, 0 Sets without a Template, 0 Messages malformed" in said
    for flow in flows:  # the names of the enterprise elements come from the options records (RFC 5610)
        assert (flow["interfaceName"], flow["interfaceDescription"]) == (far.name, ALIAS)
        assert (flow["acmeInterface"], flow["acmeName"]) == (far.ifindex, far.name)
    assert shown.count(f'": "{ALIAS}"') == PLAN.flows
    assert shown.count(f'": "{far.name}"') >= PLAN.flows  # the options records name it too


@pytest.mark.e2e(tools=("nfcapd", "nfdump"))
@pytest.mark.parametrize("template", TEMPLATES)
def test_nfdump_reads_the_standard_fields(lab: Lab, tmp_path: Path, template: str) -> None:
    near, far = host(lab)
    with Nfcapd(lab, far.ns, tmp_path) as collector:
        run(lab, near, far, tmp_path, template)
        flows, summary = collector.flows(), collector.summary()
    assert summary.sequence_errors == 0
    assert sorted(
        (flow["src4_addr"], flow["dst4_addr"], flow["src_port"], flow["dst_port"], flow["input_snmp"],
         flow["in_packets"], flow["in_bytes"])
        for flow in flows
    ) == foreseen(far)  # fmt: skip


@pytest.mark.e2e(tools=("nfacctd",))
@pytest.mark.parametrize("template", TEMPLATES)
def test_pmacct_reads_the_standard_fields(lab: Lab, tmp_path: Path, template: str) -> None:
    near, far = host(lab)
    with Nfacctd(lab, far.ns, tmp_path) as collector:
        run(lab, near, far, tmp_path, template)
        flows = collector.flows(PLAN.flows)
    assert collector.warnings() == []
    assert sorted(
        (flow["ip_src"], flow["ip_dst"], flow["port_src"], flow["port_dst"], flow["iface_in"], flow["packets"],
         flow["bytes"])
        for flow in flows
    ) == foreseen(far)  # fmt: skip
