"""Every shipped template, over IPFIX and NetFlow v9: collectors show the ports of all protocols, and ICMP."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from netobs.encode.protocols import exporter
from netobs.records import FlowBatch
from netobs.report import Report
from tests.lab.collectors import Nfacctd, Nfcapd
from tests.lab.namespaces import Lab, in_namespace
from tests.lab.programs import bound_socket, wait_until
from tests.unit.encode.samples import EXPORT_TIME_S, TEMPLATES, batch, flow

NAMES = tuple(sorted(path.stem for path in TEMPLATES.glob("*.toml")))
VARIANTS = tuple((name, protocol) for name in NAMES for protocol in ("ipfix", "netflow9"))
PORTS = {"tcp": 6, "udp": 17, "dccp": 33, "sctp": 132, "udplite": 136}
ICMP = {1: (3, 4), 58: (135, 2)}
PACKETS, OCTETS = 10, 5400


def flows(variant: int) -> FlowBatch:
    """A flow of each protocol and family; the source address says which variant and which protocol it is."""
    rows = []
    for protocol in PORTS.values():
        ports = {"src_port": 1000 + protocol, "dst_port": 2000 + protocol}
        rows += [flow(f"10.0.{variant}.{protocol}", "10.9.9.9", protocol=protocol, **ports)]
        rows += [flow(f"2001:db8::{variant}:{protocol}", "2001:db8::", protocol=protocol, **ports)]
    for protocol, (kind, code) in ICMP.items():
        source, destination = (f"10.0.{variant}.{protocol}", "10.9.9.9") if protocol == 1 else (
            f"2001:db8::{variant}:{protocol}", "2001:db8::")  # fmt: skip
        rows += [flow(source, destination, protocol=protocol, icmp_type=kind, icmp_code=code)]
    return batch(*rows)


def messages(variant: int, report: Report) -> Iterator[bytes]:
    """What a session with this variant sends, in an Observation Domain of its own."""
    name, protocol = VARIANTS[variant]
    made = exporter(protocol, name, EXPORT_TIME_S - 3600, report.sampling)
    header = made.header(EXPORT_TIME_S, 0, variant + 1)
    for message, records in made.encoder.announcement(report, header, 1400):
        yield message
        header = header.advance(records, 1)
    for data_set in made.encoder.encode(flows(variant)):
        block = made.encoder.data_messages(data_set, header, 1400)
        yield from (bytes(block.message(number)) for number in range(len(block)))
        header = header.advance(len(data_set), len(block))


def send(ns: str, port: int, report: Report) -> int:
    """All variants, each read before the next one is sent; how many flows there are."""

    def is_read() -> bool:
        state = bound_socket(ns, port, "udp")
        return state is not None and not state.waiting_bytes

    with in_namespace(ns):
        sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with sender:
        sender.connect(("127.0.0.1", port))
        for variant in range(len(VARIANTS)):
            for message in messages(variant, report):
                sender.send(message)
            wait_until(is_read, "the collector reads its socket empty")
    return len(VARIANTS) * len(flows(0))


def is_right(shown: Mapping[str, Any]) -> bool:
    """Whether nfdump shows the ports, or the ICMP type and code, that were sent."""
    protocol = int(shown["proto"])
    if protocol in ICMP:
        return (shown["icmp_type"], shown["icmp_code"]) == ICMP[protocol]
    return (shown["src_port"], shown["dst_port"]) == (1000 + protocol, 2000 + protocol)


@pytest.mark.e2e(tools=("make", "nfcapd", "nfdump"))
def test_nfdump_shows_ports_and_icmp_of_every_template(lab: Lab, tmp_path: Path) -> None:
    _, far = lab.pair()
    with Nfcapd(lab, far.ns, tmp_path) as collector:
        count = send(far.ns, collector.port, Report())
        shown = collector.flows()
    assert len(shown) == count
    assert [each for each in shown if not is_right(each)] == []
    assert {(each["in_packets"], each["in_bytes"]) for each in shown} == {(PACKETS, OCTETS)}


@pytest.mark.e2e(tools=("make", "nfacctd"))
def test_pmacct_shows_ports_and_icmp_of_every_template(lab: Lab, tmp_path: Path) -> None:
    _, far = lab.pair()
    with Nfacctd(lab, far.ns, tmp_path) as collector:
        count = send(far.ns, collector.port, Report())
        shown = collector.flows(count)
    assert len(shown) == count
    numbers = {"icmp": 1, "ipv6-icmp": 58, **PORTS}
    for each in shown:
        protocol = numbers.get(each["ip_proto"]) or int(each["ip_proto"])
        kind, code = ICMP.get(protocol, (0, 0))
        ports = (0, kind << 8 | code) if protocol in ICMP else (1000 + protocol, 2000 + protocol)
        assert (each["port_src"], each["port_dst"]) == ports, each
        assert (each["packets"], each["bytes"]) == (PACKETS, OCTETS)
