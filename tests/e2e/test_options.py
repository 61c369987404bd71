"""Options records of the real daemon as collectors take them: sampling that is scaled, interfaces by name, no fault."""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lab.collectors import IpfixDump, Nfcapd, Tshark, UdpSink
from lab.daemon import KEPT, Daemon, Table, configuration
from lab.namespaces import Lab, Link, command
from lab.pmacct import Nfacctd
from lab.programs import wait_until
from lab.traffic import Traffic
from netobs.collector.decode import Decoder
from tests.e2e.test_exact import like_ethernet
from tests.unit.encode.options.test_announced import announced

pytestmark = pytest.mark.e2e(tools=("make", "nfcapd", "nfdump", "tcpdump", "tshark"))

SAMPLING = 100
PLAN = Traffic(flows=20, packets=100_000, size=(60, 1514), order="random")
PROTOCOLS = ("netflow9", "ipfix", "netflow5")
RATED = ("src_host", "dst_host", "src_port", "dst_port", "proto", "in_iface", "sampling_rate")
ALIAS = "uplink Zürich"


def observed(lab: Lab) -> tuple[Link, Link]:
    """A pair whose far end has an alias; what it sends to collectors looks as on an Ethernet."""
    near, far = lab.pair()
    like_ethernet(lab, far.ns)
    lab.run(far.ns, ["ip", "link", "set", far.name, "alias", ALIAS])
    return near, far


def files(collector: Nfcapd) -> str:
    collector.stop()
    (file,) = (str(path) for path in collector.files.glob("nfcapd.2*"))
    return file


@pytest.mark.e2e(tools=("nfacctd",))
@pytest.mark.parametrize("template", ["default", "strict", "full"])
def test_sampling_is_known_to_every_collector(lab: Lab, tmp_path: Path, template: str) -> None:
    near, far = observed(lab)
    collectors: list[Table] = []

    def collector(make: Callable[..., Any], port: int, protocol: str, **more: Any) -> Any:
        collectors.append({"name": str(port), "port": port, "protocol": protocol, "template": template})
        return stack.enter_context(make(lab, far.ns, tmp_path, port, **more))

    with contextlib.ExitStack() as stack:
        nfdump = [collector(Nfcapd, 5000 + at, protocol) for at, protocol in enumerate(PROTOCOLS)]
        scaled: Table = {"columns": RATED, "settings": {"nfacctd_renormalize": "true"}}
        pmacct = [collector(Nfacctd, 5010 + at, protocol, **scaled) for at, protocol in enumerate(PROTOCOLS)]
        plain = [collector(Nfacctd, 5020 + at, protocol, columns=RATED) for at, protocol in enumerate(PROTOCOLS)]
        streams = [stack.enter_context(Tshark(lab, far.ns, tmp_path, 5000 + at)) for at in range(len(PROTOCOLS))]
        config = configuration({"sampling": SAMPLING}, KEPT, collectors)
        with Daemon(lab, far.ns, tmp_path, config) as daemon:
            PLAN.send(lab, near)
            account = daemon.finish()
        (sent, *others) = account.sent.values()
        assert others == [sent] * (len(collectors) - 1)
        assert [account.is_balanced(name) for name in account.sent] == [True] * len(collectors)
        expected = (sent.packets * SAMPLING, sent.octets * SAMPLING)
        for each in pmacct + plain:
            each.wait_for(sent.flows)
            each.end()
        for each in nfdump:
            flows = each.flows()
            assert (sum(f["in_packets"] for f in flows), sum(f["in_bytes"] for f in flows)) == expected
            assert {flow["sampled"] for flow in flows} == {1}
            assert f"packet interval: 1, packet space: {SAMPLING - 1}" in command(["nfdump", "-E", files(each)]).stdout
            assert each.summary().sequence_errors == 0
        for each in pmacct:
            flows = each.flows(sent.flows)
            assert (sum(f["packets"] for f in flows), sum(f["bytes"] for f in flows)) == expected
        for each in plain:
            flows = each.flows(sent.flows)
            assert sum(flow["packets"] for flow in flows) == sent.packets
            assert {flow["sampling_rate"] for flow in flows} == {SAMPLING}
        assert [stream.experts() for stream in streams] == [[], [], []]
    assert "WARN" not in "".join(each.log for each in pmacct + plain)
    # What is scaled differs from what was sent as the binomial distribution says: five standard deviations at most.
    deviation = math.sqrt(PLAN.packets * (SAMPLING - 1))
    assert abs(expected[0] - PLAN.packets) < 5 * deviation
    mean_octets = account.seen.octets / PLAN.packets
    assert abs(expected[1] - account.seen.octets) < 5 * deviation * mean_octets * 2


@pytest.mark.parametrize("protocol", ["netflow9", "ipfix"])
def test_nfdump_shows_interfaces_by_name(lab: Lab, tmp_path: Path, protocol: str) -> None:
    near, far = observed(lab)
    other, plain = lab.veth(near.ns, far.ns)
    config = configuration({"interfaces": ["veth*"]}, KEPT, [{"protocol": protocol}])
    with Nfcapd(lab, far.ns, tmp_path) as collector:
        with Daemon(lab, far.ns, tmp_path, config) as daemon:
            Traffic(flows=3).send(lab, near)
            Traffic(flows=2, flow_base=100).send(lab, other)
            daemon.finish()
        lines = command(["nfdump", "-r", files(collector), "-q", "-N", "-o", "fmt:%in|%inam"]).stdout.splitlines()
    shown = sorted(tuple(part.strip() for part in line.split("|")) for line in lines if line.strip())
    # An interface without an alias is described by its name.
    assert shown == sorted([(str(far.ifindex), ALIAS)] * 3 + [(str(plain.ifindex), plain.name)] * 2)


def test_a_change_is_sent_at_once(lab: Lab, tmp_path: Path) -> None:
    near, far = observed(lab)
    decoder = Decoder()
    said: list[tuple[int, str, str]] = []

    def read() -> None:
        for message in sink.drain():
            said.extend(
                (record["ingressInterface"], record["interfaceName"], record["interfaceDescription"])
                for record in decoder.decode(message).options
                if "interfaceName" in record
            )

    def heard(*wanted: tuple[int, str, str]) -> bool:
        read()
        return said[-len(wanted) :] == list(wanted)

    with UdpSink(far.ns) as sink:
        config = configuration({"interfaces": ["veth*"]}, KEPT, [{"options_refresh": "1h", "template_refresh": "1h"}])
        with Daemon(lab, far.ns, tmp_path, config) as daemon:
            first = (far.ifindex, far.name, ALIAS)
            wait_until(lambda: heard(first), "the interface is announced")
            lab.run(far.ns, ["ip", "link", "set", far.name, "alias", "other"])
            changed = (far.ifindex, far.name, "other")
            wait_until(lambda: heard(changed), "the new alias is announced")
            _, late = lab.veth(near.ns, far.ns)
            wait_until(lambda: heard(changed, (late.ifindex, late.name, late.name)), "the new interface is announced")
            daemon.finish()
    assert decoder.stats.sequence_errors == decoder.stats.sets_without_template == 0


@pytest.mark.e2e(tools=("ipfixDump", "socat"))
@pytest.mark.parametrize("template", ["default", "strict"])
def test_ipfixdump_finds_no_fault(lab: Lab, tmp_path: Path, template: str) -> None:
    near, far = observed(lab)
    collector = {"transport": "tcp", "template": template, "options_refresh": "1s"}
    config = configuration({"sampling": SAMPLING, "eviction_interval": "200ms"}, {"active_timeout": "0s"}, [collector])
    said = re.compile(r"exportedFlowRecordTotalCount : (\d+)")
    with (
        IpfixDump(lab, far.ns, tmp_path, by_line=True) as dump,
        Tshark(lab, far.ns, tmp_path, transport="tcp") as stream,
    ):

        def counts() -> list[int]:
            return [int(count) for count in said.findall(dump.output.read_text(encoding="utf-8", errors="replace"))]

        with Daemon(lab, far.ns, tmp_path, config) as daemon:
            wait_until(lambda: counts()[:1] == [0], "the first statistics come")
            PLAN.send(lab, near)
            wait_until(lambda: counts()[-1] > 0, "statistics with flows come")
            account = daemon.finish()
        records = dump.records()
        assert dump.faults() == []
        assert stream.experts() == []
    assert sum("octetDeltaCount" in record for record in records) == account.sent["127.0.0.1"].flows
    about = [record for record in records if "interfaceName" in record][-1]
    assert about["interfaceName"].endswith(f") {far.name}")  # behind its length
    assert counts() == sorted(counts())
    if template == "strict":
        assert sum("flowKeyIndicator" in record for record in records) >= 2
        assert any("samplingProbability" in record for record in records)


@pytest.mark.e2e(tools=("ipfixDump",))
@pytest.mark.parametrize("form", ["fixed", "strict"])
def test_ipfixdump_learns_the_names_of_enterprise_elements(tmp_path: Path, form: str) -> None:
    file = tmp_path / "messages.ipfix"
    file.write_bytes(b"".join(announced("ipfix", form)))
    done = command(["ipfixDump", "-i", str(file), "--rfc5610"])
    (line,) = [line for line in done.stdout.splitlines() if "ent: 32473" in line]
    assert line.split() == ["ent:", "32473", "id:", "5", "type:", "uint32", "len:", "4", "acmeInterface"]
    assert done.stderr == ""


OWN = """
[[template]]
id = 300
family = "ipv4"
elements = [
    "sourceIPv4Address", "packetDeltaCount", "octetDeltaCount",
    {name = "acmeIf", enterprise = 32473, id = 5, type = "unsigned32", value = "interfaceIndex", description = "where"},
]
"""


@pytest.mark.e2e(tools=("ipfixDump", "socat"))
def test_ipfixdump_prints_an_enterprise_element_of_a_template_file_by_name(lab: Lab, tmp_path: Path) -> None:
    near, far = observed(lab)
    path = tmp_path / "own.toml"
    path.write_text(OWN, encoding="utf-8")
    config = configuration(metering=KEPT, collectors=[{"transport": "tcp", "template": str(path)}])
    with IpfixDump(lab, far.ns, tmp_path) as dump:
        with Daemon(lab, far.ns, tmp_path, config) as daemon:
            Traffic(flows=20).send(lab, near)
            daemon.finish()
        assert [flow["acmeIf"] for flow in dump.flows()] == [str(far.ifindex)] * 20
        assert dump.faults() == []
        (described,) = [record for record in dump.records() if "informationElementName" in record]
    assert described["informationElementDescription"].endswith(" where")
