"""TCP connections that a router forwards, as a collector gets them: times of both halves, where there were any."""

from __future__ import annotations

import contextlib
import json
import socket
from pathlib import Path
from typing import Any

import pytest

from lab.collectors import UdpSink
from lab.daemon import KEPT, Daemon, configuration, netobs
from lab.namespaces import Lab, command, in_namespace
from lab.path import CLIENT, PORT, SERVER, TcpInfo, TcpPath, Wire, exchanges
from netobs.collector.decode import Decoder
from netobs.encode.columns import OWN_VALUES
from netobs.flow.metrics import INSIGHT_GROUPS

pytestmark = pytest.mark.e2e(tools=("gcc", "taskset"))

VALUES = [name for name, (_, column) in OWN_VALUES.items() if column.group in INSIGHT_GROUPS]
NAMES = {f"acme{name[0].upper()}{name[1:]}": name for name in VALUES}
TIMES = {name for name in VALUES if name.endswith("Microseconds")}


def template(directory: Path) -> str:
    """The path of a template file with all values, under numbers of an enterprise."""
    entries = [
        {"name": name, "enterprise": 32473, "id": number, "value": value, "type": OWN_VALUES[value][0].type}
        for number, (name, value) in enumerate(NAMES.items(), 1)
    ]
    own = ["{" + ", ".join(f"{key} = {json.dumps(value)}" for key, value in each.items()) + "}" for each in entries]
    plain = ("protocolIdentifier", "sourceTransportPort", "destinationTransportPort", "packetDeltaCount",
             "octetDeltaCount", "flowEndMilliseconds", "sourceIPv4Address", "destinationIPv4Address")  # fmt: skip
    elements = ",\n    ".join([*map(json.dumps, plain), *own])
    path = directory / "insight.toml"
    path.write_text(f'[[template]]\nfamily = "ipv4"\nelements = [\n    {elements},\n]\n', encoding="utf-8")
    return str(path)


def flows_of(sink: UdpSink) -> list[dict[str, Any]]:
    decoder = Decoder()
    return [flow for message in sink.drain() for flow in decoder.decode(message).flows]


@pytest.mark.parametrize("table", ["percpu_array", "percpu_hash"])
def test_both_halves_of_a_forwarded_connection(lab: Lab, tmp_path: Path, table: str) -> None:
    with contextlib.ExitStack() as stack:
        path = TcpPath(lab, tmp_path, Wire(1000), Wire(5000))
        stack.callback(path.close)
        sink = stack.enter_context(UdpSink(path.router))
        config = configuration({"flow_table": table}, KEPT, [{"template": template(tmp_path)}], insight={"tcp": True})
        daemon = stack.enter_context(Daemon(lab, path.router, tmp_path, config))
        with path.connection() as (client, server):
            exchanges(client, server, 20)
            info = TcpInfo.of(client)
            for one, other in ((client, server), (server, client)):
                one.shutdown(socket.SHUT_WR)
                assert other.recv(1) == b""
        daemon.stop()
        flows = flows_of(sink)
    named = [{NAMES.get(name, name): value for name, value in flow.items()} for flow in flows]
    by_destination = {(flow["protocolIdentifier"], flow["destinationIPv4Address"]): flow for flow in named}
    to_server, to_client = by_destination[6, SERVER], by_destination[6, CLIENT]
    assert (to_server["destinationTransportPort"], to_client["sourceTransportPort"]) == (PORT, PORT)
    assert to_server["tcpRttMinMicroseconds"] >= 10_000
    assert to_client["tcpRttMinMicroseconds"] >= 2_000
    whole = to_server["tcpRttMinMicroseconds"] + to_client["tcpRttMinMicroseconds"]
    assert whole <= 1.05 * info.min_rtt + 50
    for flow in (to_server, to_client):
        assert set(VALUES) <= set(flow)
        assert flow["tcpRttSampleCount"] >= 15
        assert flow["tcpRttMinMicroseconds"] <= flow["tcpRttMeanMicroseconds"] <= flow["tcpRttMaxMicroseconds"]
        assert (flow["tcpSynPackets"], flow["tcpFinPackets"], flow["tcpRstPackets"]) == (1, 1, 0)
        assert flow["tcpRetransmittedPackets"] == flow["tcpRetransmittedOctets"] == 0
    assert set(by_destination[17, SERVER]).isdisjoint(VALUES)


def test_a_syn_without_an_answer_has_no_time(lab: Lab, tmp_path: Path) -> None:
    near, far = lab.pair()
    lab.address(near, "10.9.0.1/24")
    command(["ip", "-n", near.ns, "neigh", "add", "10.9.0.2", "lladdr", far.mac, "dev", near.name])
    config = configuration(None, KEPT, [{"template": template(tmp_path)}], insight={"tcp": True})
    with UdpSink(far.ns) as sink, Daemon(lab, far.ns, tmp_path, config) as daemon:
        with in_namespace(near.ns):
            sock = socket.socket()
        with sock, contextlib.suppress(OSError):
            sock.settimeout(0.2)
            sock.connect(("10.9.0.2", 77))
        daemon.stop()
        flows = flows_of(sink)
    (syn,) = [flow for flow in flows if flow["destinationTransportPort"] == 77]
    named = {NAMES.get(name, name): value for name, value in syn.items()}
    assert named["tcpSynPackets"] == named["packetDeltaCount"] >= 1
    assert named["tcpRttSampleCount"] == 0
    assert set(named).isdisjoint(TIMES)


def test_a_template_needs_the_key(lab: Lab, tmp_path: Path) -> None:
    conf = tmp_path / "netobs.toml"
    conf.write_text(configuration(None, None, [{"template": template(tmp_path)}]), "utf-8")
    done = netobs(lab, lab.namespace(), "--conf", str(conf), "--dry-run")
    assert "are not measured; set tcp = true in [insight]" in done.stdout + done.stderr
    assert done.returncode != 0
    conf.write_text(configuration(None, None, [{"template": template(tmp_path)}], insight={"tcp": True}), "utf-8")
    done = netobs(lab, lab.namespace(), "--conf", str(conf), "--dry-run")
    assert "of that, and some time for each packet, for" in done.stdout
    assert "[insight] tcp" in done.stdout
