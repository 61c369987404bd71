"""What costs each packet something: a template that names such elements switches it on, at a start only."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab import frames as f
from lab.collectors import Tshark, UdpSink
from lab.daemon import KEPT, Daemon, configuration, netobs
from lab.namespaces import Lab
from lab.programs import WAIT_S, wait_until
from lab.wire import Sender
from netobs.encode.columns import COLUMNS
from netobs.flow.metrics import IPV4, IPV6
from tests.e2e.test_listen import listening

pytestmark = pytest.mark.e2e(tools=("make", "ethtool", "tcpdump", "tshark"))

LABEL = 0xBEEF5  # of lab.frames
OPTIONS = b"\2\4\5\xb4\4\2\xfe\6abcd"
PLAIN = ("protocolIdentifier", "ipVersion", "packetDeltaCount", "octetDeltaCount", "flowEndMilliseconds")
FRAMES = {
    6: f.ethernet(f.IPV4, f.ipv4(f.TCP, f.tcp(options=OPTIONS), fragment=0x4000)),
    17: f.ethernet(*f.tag(f.AD, 5, *f.tag(f.Q, 6, *f.mpls(f.ipv4(f.UDP, f.udp(bytes(20))), labels=2), priority=3))),
    132: f.ethernet(f.IPV6, f.ipv6(*f.chain([f.extension(f.HOP), f.fragment6(0, more=True)], f.SCTP, f.ports(16)))),
}
"""By protocol."""
OCTETS = {protocol: len(frame) for protocol, frame in FRAMES.items()}


def optional(family: str) -> list[str]:
    """The elements that cost packets something."""
    return [name for name, column in COLUMNS.items() if column.group and column.family in ("", family)]


def template(directory: Path, *names: str) -> str:
    """The path of a template file with what every flow has, and ``names``, or all optional elements."""
    path = directory / "optional.toml"
    tables = [
        f'[[template]]\nfamily = "{family}"\nelements = {json.dumps([*PLAIN, *(names or optional(family))])}\n'
        for family in (IPV4, IPV6)
    ]
    path.write_text("\n".join(tables), encoding="utf-8")
    return str(path)


def zeros(family: str) -> dict[str, Any]:
    """As ``netobs listen`` shows what no packet said."""
    shown = {name: "000000" if "LabelStackSection" in name else 0 for name in optional(family)}
    return {**shown, "tcpWindowSize": 65535}


EXPECTED = {
    6: {**zeros(IPV4), "tcpOptionsFull": 1 << 2 | 1 << 4 | 1 << 254, "tcpWindowSize": 512, "fragmentFlags": 0x40,
        "layer2OctetDeltaCount": 3 * OCTETS[6]},
    17: {**zeros(IPV4), "dot1qCustomerVlanId": 6, "dot1qCustomerPriority": 3, "mplsLabelStackDepth": 2,
         "mplsTopLabelStackSection": f"{1000 << 4:06x}", "mplsLabelStackSection2": f"{1001 << 4 | 1:06x}",
         "layer2OctetDeltaCount": 3 * OCTETS[17]},
    132: {**zeros(IPV6), "flowLabelIPv6": LABEL, "fragmentFlags": 0x20, "ipv6ExtensionHeadersFull": 1 << 1 | 1 << 4,
          "layer2OctetDeltaCount": 3 * OCTETS[132]},
}  # fmt: skip


TSHARK = {
    "layer2OctetDeltaCount": "layer2_octet_delta_count", "tcpWindowSize": "tcp_windows_size",
    "dot1qCustomerVlanId": "dot1q_customer_vlan_id", "dot1qCustomerPriority": "dot1q_customer_priority",
    "fragmentFlags": "ip_fragment_flags", "mplsLabelStackDepth": "mpls_label_depth", "flowLabelIPv6": "ipv6flowlabel",
}  # fmt: skip
"""Its names; it does not know the elements of RFC 9740, and shows their octets."""
UNKNOWN = "cflow.enterprise_private_entry"


def records(shown: Any) -> Iterator[dict[str, Any]]:
    """The Data Records in what tshark shows, at whatever depth."""
    for name, inside in shown.items() if isinstance(shown, dict) else enumerate(shown):
        if str(name).startswith("Flow "):
            yield inside
        elif isinstance(inside, (dict, list)):
            yield from records(inside)


def by_tshark(flow: dict[str, Any]) -> dict[str, int]:
    shown = {name: flow.get(f"cflow.{its}") for name, its in TSHARK.items()}
    return {name: int(value, 0) for name, value in shown.items() if value is not None}


@pytest.mark.parametrize("flow_table", ["percpu_array", "percpu_hash", "ringbuf"])
def test_netobs_listen_and_tshark_read_all_of_it(lab: Lab, tmp_path: Path, flow_table: str) -> None:
    near, far = lab.pair()
    collector = {"template": template(tmp_path), "name": "main"}
    config = configuration({"direction": "ingress", "flow_table": flow_table}, KEPT, [collector])
    with Tshark(lab, far.ns, tmp_path) as stream:
        with listening(lab, far.ns, "--json", "--once", str(len(FRAMES))) as process:
            with Daemon(lab, far.ns, tmp_path, config) as daemon, Sender(near) as sender:
                for frame in FRAMES.values():
                    sender.send(*[frame] * 3)
                wait_until(lambda: daemon.account().seen.packets == 3 * len(FRAMES), "all packets are seen")
                assert daemon.finish().is_balanced("main")
            output, said = process.communicate(timeout=WAIT_S)
        assert stream.experts() == []
        dissected = {flow["cflow.protocol"]: flow for flow in records(stream.messages()) if "cflow.protocol" in flow}
    flows = {flow["protocolIdentifier"]: flow for flow in map(json.loads, output.splitlines())}
    assert {protocol: {name: flows[protocol][name] for name in EXPECTED[protocol]} for protocol in flows} == EXPECTED
    assert " 0 records lost, 0 Sets without a Template, 0 Messages malformed" in said
    assert {int(protocol): by_tshark(flow) for protocol, flow in dissected.items()} == {
        protocol: {name: value for name, value in flow.items() if name in TSHARK} for protocol, flow in EXPECTED.items()
    }
    masks = {protocol: json.dumps(flow.get(UNKNOWN)) for protocol, flow in dissected.items()}
    for protocol, name in ((6, "tcpOptionsFull"), (132, "ipv6ExtensionHeadersFull")):
        assert EXPECTED[protocol][name].to_bytes(32, "big").hex(":") in masks[str(protocol)]


def test_dry_run_says_what_it_takes(lab: Lab, tmp_path: Path) -> None:
    _, far = lab.pair()
    path = tmp_path / "netobs.toml"
    found = []
    for elements in (["tcpOptionsFull", "tcpWindowSize"], ["tcpControlBits"]):
        path.write_text(configuration(collectors=[{"template": template(tmp_path, *elements)}]), encoding="utf-8")
        done = netobs(lab, far.ns, "--conf", str(path), "--dry-run")
        assert (done.returncode, done.stderr) == (0, "")
        found.append(done.stdout)
    line = r"^  ([0-9.]+) MiB of that, and some time for each packet, for (.*): see netobs-templates\(5\)$"
    said = re.search(line, found[0], re.MULTILINE)
    assert said is not None
    assert said[2] == "tcpOptionsFull, tcpWindowSize"
    kernel, cache = (
        [float(number) for number in re.findall(rf" ([0-9.]+) MiB of {what} memory", "\n".join(found))]
        for what in ("kernel", "process")
    )
    assert float(said[1]) == pytest.approx(kernel[0] - kernel[1], abs=0.11)
    assert float(said[1]) > 1
    assert cache[0] > cache[2]
    assert "of that, and some time" not in found[1]


def test_reload_refuses_what_is_measured_from_a_start_on(lab: Lab, tmp_path: Path) -> None:
    """And takes what needs no more than the programs that run."""
    _, far = lab.pair()
    with UdpSink(far.ns):
        first = {"template": template(tmp_path, "tcpWindowSize"), "name": "main"}
        with Daemon(lab, far.ns, tmp_path, configuration(metering=KEPT, collectors=[first])) as daemon:
            template(tmp_path, "tcpWindowSize", "fragmentFlags", "mplsLabelStackDepth")
            said = daemon.reload(configuration(metering=KEPT, collectors=[first]))
            missing = "elements fragmentFlags, mplsLabelStackDepth: the running programs do not measure them"
            assert f"reload: template {missing}; restart netobs" in said
            assert "reload: failed, the configuration stays as it was" in said
            template(tmp_path, "tcpControlBits")
            assert "reload: done" in daemon.reload(configuration(metering=KEPT, collectors=[first]))
            daemon.finish()
