"""What the doctor reads from files, clocks and sockets of this host, and what it makes of a daemon's state."""

from __future__ import annotations

import contextlib
import re
import socket
import struct
from pathlib import Path
from typing import Any

import pytest

from netobs import config
from netobs.doctor import collectors, hooks, interfaces, links, process, report, running, unit
from netobs.doctor.finding import Finding, joined, worst
from netobs.kernel.interfaces import Interface
from netobs.kernel.privileges import NEEDED


def collector(**keys: object) -> config.CollectorConfig:
    return config.from_tables({"collector": [keys]}, "netobs.toml").collectors[0]


def severities(findings: Any) -> dict[str, str]:
    return {each.id: each.severity for each in findings}


def test_findings_that_differ_in_their_place_are_one_and_the_worst_is_first() -> None:
    low, high = Finding("a", "note", "text", ("eth0",)), Finding("b", "problem", "text")
    found = joined([low, high, low._replace(where=("eth1",)), low._replace(what="other")])
    assert found == [high, low._replace(where=("eth0", "eth1")), low._replace(what="other")]
    assert (worst(found), worst([low]), worst([])) == ("problem", "note", "ok")


def test_virtual_functions_of_the_interface_that_sys_shows(tmp_path: Path) -> None:
    folder = tmp_path / "eth0" / "device"
    folder.mkdir(parents=True)
    (folder / "sriov_numvfs").write_text("4\n")
    (tmp_path / "eth0" / "ifindex").write_text("7\n")
    assert links.virtual_functions(Interface(7, "eth0", 1), tmp_path) == 4
    assert links.virtual_functions(Interface(8, "eth0", 1), tmp_path) == 0  # of another namespace
    assert links.virtual_functions(Interface(9, "eth1", 1), tmp_path) == 0


def test_what_a_network_card_does_by_itself() -> None:
    link = links.parsed(Interface(7, "eth0", 1), b"")
    on = {"rx-gro": True, "rx-lro": True, "rx-gro-hw": True, "hw-tc-offload": True, "tx-tcp-segmentation": True}
    seen = interfaces.Seen(link, True, "clsact", {"ingress": [], "egress": []}, on)
    assert severities(interfaces.offloads_of(seen)) == {"hw-tc-offload": "warning", "lro": "warning", "gro": "ok"}
    assert severities(interfaces.offloads_of(seen._replace(offloads=dict.fromkeys(on, False)))) == {}


def test_an_open_vswitch_port_is_counted_once_and_a_slave_of_a_bond_twice() -> None:
    for kind, expected in (
        ("openvswitch", {}),
        ("bond", {"counted-twice": "warning"}),
        ("vrf", {"counted-twice": "note"}),
    ):
        ports = [links.parsed(Interface(7, "eth0", 1), attribute(10, struct.pack("=I", 9)))]
        ports.append(links.parsed(Interface(9, "master", 1, kind), b""))
        seen = [interfaces.Seen(each, True, "", {"ingress": [], "egress": []}, {}) for each in ports]
        assert severities(interfaces.twice(seen)) == expected


def test_a_filter_in_the_network_card() -> None:
    """TCA_FLOWER_FLAGS and TCA_CLS_FLAGS_IN_HW of linux/pkt_cls.h."""
    options = {22: struct.pack("=I", 1 << 2 | 1 << 3)}
    entry = hooks.filter_entry("clsact", "flower", 1, 9, options, None)
    assert entry.in_hardware
    assert not hooks.filter_entry("clsact", "flower", 1, 9, {22: struct.pack("=I", 1 << 3)}, None).in_hardware
    link = links.parsed(Interface(7, "eth0", 1), b"")
    seen = interfaces.Seen(link, True, "clsact", {"ingress": [entry], "egress": []}, {})
    config_of_capture = config.CaptureConfig(direction="ingress")
    found = {each.id: each for each in interfaces.findings(config_of_capture, [seen], hooks.Hooks(), False)}
    assert found["hardware-filter"].where == ("eth0 ingress",)


def test_many_places_are_one_line() -> None:
    ways = ("ingress", "egress")
    where = [f"tap{number:07x}-{number:02x} {way}" for number in range(500) for way in ways]
    finding = Finding("a", "note", "text", ("eth0 ingress", *where, 'collector "a b"'))
    assert finding.place() == 'eth0 ingress; 500 taps ingress and egress; collector "a b"'
    assert Finding("a", "note", "text").place() == "host"


def test_a_host_without_a_configuration_is_looked_at_by_the_defaults(tmp_path: Path) -> None:
    found = report.examine(tmp_path / "none.toml", None, "no daemon answers")
    severity = severities(found.findings)
    assert (severity["configuration-missing"], severity["no-daemon"]) == ("warning", "note")
    assert {each.link.name for each in found.interfaces if each.selected}.isdisjoint({"lo"})
    assert found.exit_status == 3
    plain, coloured = "\n".join(found.lines()), "\n".join(found.lines(coloured=True))
    assert "warning  configuration-missing  configuration" in plain
    assert re.sub(r"\x1b\[[0-9;]*m", "", coloured) == plain != coloured


def test_a_spool_that_this_user_cannot_use(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    conf = tmp_path / "netobs.toml"
    conf.write_text(f'[[collector]]\nhost = "192.0.2.1"\ntransport = "tcp"\nspool = "{tmp_path}/file/a"\n')
    assert severities(report.examine(conf, None).findings)["spool"] == "warning"
    running_one = {"daemon": {"pid": 1 << 30}, "configuration": {"file": str(conf)}}  # it says so itself
    assert "spool" not in severities(report.examine(conf, running_one).findings)


def attribute(kind: int, value: bytes) -> bytes:
    """struct nlattr."""
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def test_what_rtnetlink_says_of_a_port_of_a_hardware_switch(tmp_path: Path) -> None:
    """IFLA_MASTER, IFLA_LINK, IFLA_PHYS_SWITCH_ID, IFLA_PHYS_PORT_NAME, IFLA_XDP of linux/if_link.h."""
    xdp = attribute(2, b"\x04") + attribute(5, struct.pack("=I", 31)) + attribute(6, struct.pack("=I", 32))
    message = attribute(10, struct.pack("=I", 3)) + attribute(5, struct.pack("=I", 4)) + attribute(43, xdp)
    message += attribute(36, bytes.fromhex("0c42a1")) + attribute(38, b"pf0vf1\0")
    link = links.parsed(Interface(7, "eth0", 1), message, tmp_path)
    assert link == links.Link(Interface(7, "eth0", 1), 3, 4, {"driver": 31, "generic": 32}, "0c42a1", "pf0vf1", 0)
    (found,) = interfaces.bypasses(link)
    assert (found.id, "port pf0vf1" in found.what) == ("switchdev", True)
    elsewhere = links.parsed(Interface(7, "eth0", 1), message + attribute(37, bytes(4)), tmp_path)  # IFLA_LINK_NETNSID
    assert elsewhere.lower == 0
    (found,) = interfaces.bypasses(links.parsed(Interface(7, "eth0", 1), b"", tmp_path)._replace(virtual_functions=8))
    assert (found.id, "8 SR-IOV virtual functions" in found.what) == ("sriov", True)


@pytest.fixture
def slow_reader() -> Any:
    """A UDP socket on this host whose buffer is full, and how many datagrams it did not take."""
    with contextlib.ExitStack() as opened:
        receiver = opened.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        receiver.bind(("127.0.0.1", 0))
        sender = opened.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        for _ in range(50):
            sender.sendto(bytes(1000), receiver.getsockname())
        yield receiver


def test_a_collector_of_this_host_that_is_too_slow(slow_reader: socket.socket) -> None:
    port = slow_reader.getsockname()[1]
    (state,) = collectors.sockets_at(port, "udp")
    assert 0 < state.drops < 50
    assert state.waiting_bytes
    found = {each.id: each for each in collectors.findings([collector(host="127.0.0.1", port=port)])}
    assert f"{state.drops} datagrams found the socket buffer" in found["collector-drops"].what
    assert "collector-not-listening" not in found
    assert collectors.udp_counters()["RcvbufErrors"] >= state.drops
    assert "udp-buffer-errors" in found


def test_a_collector_of_this_host_that_does_not_listen(slow_reader: socket.socket) -> None:
    port = slow_reader.getsockname()[1]
    findings = collectors.findings([collector(host="127.0.0.1", port=port, transport="tcp")])
    assert severities(findings)["collector-not-listening"] == "warning"
    with socket.create_server(("127.0.0.1", 0)) as listening:
        place = collector(host="127.0.0.1", port=listening.getsockname()[1], transport="tcp")
        assert "collector-not-listening" not in severities(collectors.findings([place]))


@pytest.mark.parametrize("host", ["192.0.2.1", "2001:db8::1", "239.1.2.3"])
def test_other_collectors_are_not_of_this_host(host: str) -> None:
    answer = collectors.ask([collector(host=host)])[host]
    assert not any(map(collectors.is_of_this_host, answer.addresses))
    assert severities(collectors.findings([collector(host=host)])) == {}


def test_names_are_asked_for_at_the_same_time_and_not_for_ever() -> None:
    several = [collector(host=f"collector{number}.invalid") for number in range(3)]
    answers = collectors.ask(several, within_ns=0)
    assert set(answers) <= {each.name for each in several}  # those that were quick
    numbers = collectors.ask([collector(host="192.0.2.1"), *several], within_ns=0)
    assert numbers["192.0.2.1"].error == ""


def proc(tmp_path: Path, capabilities: int, limit: str = "1024", fds: int = 3) -> Path:
    """A folder like /proc with the process 7."""
    folder = tmp_path / "7"
    (folder / "fd").mkdir(parents=True)
    for number in range(fds):
        (folder / "fd" / str(number)).touch()
    (folder / "status").write_text(f"Name:\tnetobs\nCapPrm:\t{capabilities:016x}\n")
    (folder / "limits").write_text(
        "Limit                     Soft Limit           Hard Limit           Units     \n"
        "Max locked memory         unlimited            unlimited            bytes     \n"
        f"Max open files            {limit:<20} 4096                 files     \n"
    )
    (folder / "cgroup").write_text("0::/system.slice/system-netobs.slice/netobs@a.service\n")
    return tmp_path


def test_what_proc_shows_of_the_daemon(tmp_path: Path) -> None:
    everything = sum(1 << bit for bit, _ in NEEDED.values())
    found = process.look(7, proc(tmp_path, everything))
    assert found == process.Process(7, everything, 3, 1024, None, "netobs@a.service")
    assert severities(process.findings(found, None)) == {"daemon-capabilities": "ok", "descriptors": "ok"}
    nothing = process.look(8, tmp_path)
    assert nothing == process.Process(8, None, None, None, None, "")
    assert severities(process.findings(nothing, None)) == {}


@pytest.mark.parametrize(
    ("used", "expected"),
    [(700, ("descriptors", "ok")), (850, ("descriptors", "ok")), (896, ("descriptors-full", "problem"))],
)
def test_descriptors_run_short_before_the_reserve(used: int, expected: tuple[str, str]) -> None:
    found = process.Process(7, None, used, 1024, None, "")
    assert severities(process.findings(found, None)) == dict([expected])


STATE: dict[str, Any] = {
    "daemon": {"version": "1.0", "pid": 7, "state": "running"},
    "configuration": {"file": "/etc/netobs.toml"},
    "problems": [],
    "events": {"clock_step": 0},
}


def test_a_daemon_without_trouble() -> None:
    assert (running.pid_of(STATE), running.file_of(STATE)) == (7, "/etc/netobs.toml")
    assert running.is_at_work(STATE)
    assert severities(running.findings(STATE)) == {"daemon": "ok"}
    assert (running.pid_of(None), running.file_of(None), running.is_at_work(None)) == (0, "", False)
    assert severities(running.findings({})) == {"daemon": "ok"}  # of another version
    assert not running.is_at_work({"daemon": {"pid": 7, "state": "starting"}})


def test_what_a_daemon_says_of_its_trouble() -> None:
    problems = ["the last reload failed: a; b; correct the file, then run netobs reload", "no remedy is known"]
    _, *found, stepped = running.findings({**STATE, "problems": problems, "events": {"clock_step": 2}})
    assert [(each.id, each.severity, each.what, each.remedy) for each in found] == [
        ("daemon-problem", "problem", "the last reload failed: a; b", "correct the file, then run netobs reload"),
        ("daemon-problem", "problem", "no remedy is known", ""),
    ]
    assert (stepped.id, stepped.severity) == ("clock-stepped", "warning")


UNIT = {
    "LoadState": "loaded", "ActiveState": "active", "SubState": "running", "Result": "success", "NRestarts": "0",
    "User": "netobs", "AmbientCapabilities": "cap_net_admin cap_perfmon cap_bpf",
    "CapabilityBoundingSet": "cap_net_admin cap_perfmon cap_bpf",
    "FileDescriptorStoreMax": "8192", "NFileDescriptorStore": "60",
}  # fmt: skip


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, {"unit": "ok"}),
        ({"ActiveState": "failed", "Result": "exit-code"}, {"unit-failed": "problem"}),
        ({"NRestarts": "5"}, {"unit-restarts": "warning"}),
        ({"NFileDescriptorStore": "8192"}, {"unit": "ok", "fd-store-full": "warning"}),
        ({"FileDescriptorStoreMax": "0", "NFileDescriptorStore": "0"}, {"unit": "ok"}),
        ({"AmbientCapabilities": "cap_bpf"}, {"unit": "ok", "unit-capability-missing": "problem"}),
        ({"AmbientCapabilities": "", "User": ""}, {"unit": "ok"}),
        ({"CapabilityBoundingSet": "cap_bpf", "User": ""}, {"unit": "ok", "unit-capability-missing": "problem"}),
    ],
)
def test_what_systemd_says_of_the_unit(changed: dict[str, str], expected: dict[str, str]) -> None:
    findings = [*unit.findings("netobs.service", {**UNIT, **changed})]
    assert severities(findings) == expected
    missing = [each.what for each in findings if each.id == "unit-capability-missing"]
    assert all("CAP_NET_ADMIN, CAP_PERFMON" in what for what in missing)


def test_the_unit_of_a_file() -> None:
    files = ("/etc/netobs.toml", "/etc/netobs/edge.toml", "/srv/netobs.toml", "/etc/netobs/a/b.toml")
    assert [unit.of_file(each) for each in files] == ["netobs.service", "netobs@edge.service", "", ""]
    assert [*unit.findings("", unit.properties(""))] == []
