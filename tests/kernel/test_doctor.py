"""``netobs doctor`` on interfaces that others use as well: each of them is found, named, and left as it is."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from lab.daemon import configuration, traffic_control
from lab.namespaces import Lab, Link, in_namespace
from lab.wire import measured
from netobs.doctor.finding import Finding
from netobs.doctor.report import Report, examine
from netobs.kernel.attach import BPF_F_BEFORE
from tests.kernel.foreign import Foreign, compile_bpf

pytestmark = pytest.mark.kernel(tools=("clang", "tc", "bpftool"))

AF_XDP = 44
XDP = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
SEC("xdp") int foreign_xdp(struct xdp_md *ctx) { return XDP_PASS; }
char LICENSE[] SEC("license") = "Dual BSD/GPL";
"""


@pytest.fixture
def link(lab: Lab) -> Link:
    return lab.pair()[1]


def look(link: Link, tmp_path: Path, **capture: object) -> Report:
    """What the doctor finds in the link's namespace."""
    conf = tmp_path / "netobs.toml"
    conf.write_text(configuration({"interfaces": [link.name], **capture}), encoding="utf-8")
    with in_namespace(link.ns):
        return examine(conf, None)


def found(report: Report, name: str) -> list[Finding]:
    return [each for each in report.findings if each.id == name]


def order(report: Report, link: Link, direction: str) -> list[tuple[str, str, bool]]:
    """(hook, name, whether it is ours) of what the doctor saw there."""
    (seen,) = (each for each in report.as_json()["interfaces"] if each["name"] == link.name)
    return [(entry["hook"], entry["name"], bool(entry["ours"])) for entry in seen[direction]]


def add_filter(lab: Lab, link: Link, direction: str, priority: int) -> None:
    """A filter of another kind, which no packet matches."""
    tc = ["tc", "filter", "add", "dev", link.name, direction, "prio", str(priority)]
    lab.run(link.ns, [*tc, "u32", "match", "u32", "0xffffffff", "0xffffffff", "flowid", "1:1"])


def test_foreign_tcx_programs_before_and_after_ours(
    lab: Lab, link: Link, foreign_object: Path, foreign: Foreign, tmp_path: Path
) -> None:
    foreign.attach_tcx(link, "ingress")
    with measured(link, attach="tcx"), Foreign(foreign_object) as front:
        assert order(look(link, tmp_path), link, "ingress") == [
            ("tcx", "netobs_ingress", True), ("tcx", "foreign_count", False),
        ]  # fmt: skip
        front.attach_tcx(link, "ingress", "foreign_drop", BPF_F_BEFORE)
        before = traffic_control(lab, link.ns, link.name)
        report = look(link, tmp_path)
        assert traffic_control(lab, link.ns, link.name) == before
        (warned,) = found(report, "tcx-foreign-before")
        assert (warned.severity, warned.where) == ("warning", (f"{link.name} ingress",))
        assert f'"foreign_drop" (number {front.program_id("foreign_drop")}, tag ' in warned.what
        assert (
            f"attached by a link, of {Path('/proc/self/comm').read_text().strip()} (process {os.getpid()})"
            in warned.what
        )
        assert "the drops of this program are not seen by netobs" in warned.netobs
        (noted,) = found(report, "tcx-foreign-after")
        assert (noted.severity, '"foreign_count"' in noted.what) == ("note", True)
        assert order(report, link, "ingress") == [
            ("tcx", "foreign_drop", False), ("tcx", "netobs_ingress", True), ("tcx", "foreign_count", False),
        ]  # fmt: skip
        assert order(report, link, "egress") == [("tcx", "netobs_egress", True)]
        assert report.exit_status == 3


def test_a_tcx_program_comes_before_all_filters(link: Link, foreign: Foreign, tmp_path: Path) -> None:
    foreign.attach_tcx(link, "egress")
    with measured(link, attach="tc"):
        report = look(link, tmp_path, attach="tc")
    assert [each.where for each in found(report, "tcx-foreign-before")] == [(f"{link.name} egress",)]


@pytest.mark.parametrize("method", ["tcx", "tc"])
def test_foreign_clsact_filters(
    lab: Lab, link: Link, foreign_object: Path, foreign: Foreign, tmp_path: Path, method: str
) -> None:
    foreign.attach_tc(link, "ingress", priority=1)
    add_filter(lab, link, "egress", 9)
    with measured(link, attach=method):
        report = look(link, tmp_path, attach=method)
        behind = found(report, "clsact-foreign-after")
        assert {each.where for each in behind} == {(f"{link.name} ingress",), (f"{link.name} egress",)}
        words = " ".join(each.what for each in behind)
        assert f'program "foreign_count" (number {foreign.program_id()}, tag ' in words
        assert "filter u32 (priority 9 handle 0x80000800)" in words
        assert [hook for hook, _, ours in order(report, link, "ingress") if ours] == [
            "tcx" if method == "tcx" else "clsact"
        ]
        assert found(report, "clsact-foreign-before") == found(report, "not-attached") == []
        assert [each.where for each in found(report, "programs-without-daemon")] == [(link.name,)]
    foreign.detach_tc(link, "ingress", priority=1)


def test_a_filter_before_ours(lab: Lab, link: Link, tmp_path: Path) -> None:
    lab.run(link.ns, ["tc", "qdisc", "add", "dev", link.name, "clsact"])
    with measured(link, attach="tc", anchor="last"):
        add_filter(lab, link, "ingress", 7)
        (warned,) = found(look(link, tmp_path, attach="tc", anchor="last"), "clsact-foreign-before")
    assert (warned.severity, warned.where) == ("warning", (f"{link.name} ingress",))
    assert "u32 (priority 7 handle 0x80000800" in warned.what


def test_without_a_daemon_it_says_who_would_come_first(link: Link, foreign: Foreign, tmp_path: Path) -> None:
    foreign.attach_tcx(link, "ingress")
    (after,) = found(look(link, tmp_path), "tcx-foreign-after")
    assert '"foreign_count"' in after.what
    assert after.what.endswith("would run behind netobs")
    (before,) = found(look(link, tmp_path, anchor="last"), "tcx-foreign-before")
    assert before.what.endswith("would run before netobs")


@pytest.mark.parametrize(("method", "severity"), [("auto", "note"), ("tc", "warning")])
def test_a_classic_ingress_qdisc(lab: Lab, link: Link, tmp_path: Path, method: str, severity: str) -> None:
    lab.run(link.ns, ["tc", "qdisc", "add", "dev", link.name, "ingress"])
    add_filter(lab, link, "ingress", 3)
    report = look(link, tmp_path, attach=method)
    (qdisc,) = found(report, "ingress-qdisc")
    assert (qdisc.severity, qdisc.where) == (severity, (link.name,))
    assert order(report, link, "ingress")[-1][0] == "ingress"
    assert order(report, link, "egress") == []
    assert any("u32 (priority 3 handle" in each.what for each in report.findings)


def test_an_xdp_program(lab: Lab, link: Link, tmp_path: Path) -> None:
    source = tmp_path / "xdp.bpf.c"
    source.write_text(XDP, encoding="ascii")
    program = compile_bpf(source, tmp_path)
    lab.run(link.ns, ["ip", "link", "set", "dev", link.name, "xdpgeneric", "obj", str(program), "sec", "xdp"])
    with measured(link):
        report = look(link, tmp_path)
    (warned,) = found(report, "xdp-program")
    assert (warned.severity, warned.where) == ("warning", (f"{link.name} ingress",))
    assert 'XDP program "foreign_xdp" (number ' in warned.what
    assert "generic" in warned.what
    assert [hook for hook, _, _ in order(report, link, "ingress")] == ["xdp", "tcx"]


def test_a_removed_program_and_two_daemons(link: Link, tmp_path: Path) -> None:
    with measured(link, attach="tcx"), measured(link, attach="tcx"):
        (twice,) = found(look(link, tmp_path), "attached-twice")
        assert set(twice.where) == {f"{link.name} ingress", f"{link.name} egress"}
    with measured(link, attach="tcx", direction="ingress"):
        report = look(link, tmp_path)
        assert [each.where for each in found(report, "not-attached")] == [(f"{link.name} egress",)]
        assert found(look(link, tmp_path, direction="ingress"), "not-attached") == []


def test_interfaces_that_show_the_same_packets(lab: Lab, link: Link, tmp_path: Path) -> None:
    lab.run(link.ns, ["ip", "link", "add", "br9", "type", "bridge"])
    lab.run(link.ns, ["ip", "link", "add", "mac9", "link", link.name, "type", "macvlan"])
    report = look(link, tmp_path, interfaces=["*"])
    (twice,) = found(report, "counted-twice")
    assert (twice.severity, twice.where) == ("warning", ("mac9",))
    assert f"it lies on {link.name} (macvlan)" in twice.what
    lab.run(link.ns, ["ip", "link", "del", "mac9"])
    lab.run(link.ns, ["ip", "link", "set", link.name, "master", "br9"])
    (twice,) = found(look(link, tmp_path, interfaces=["*"]), "counted-twice")
    assert (twice.severity, twice.where) == ("note", (link.name,))
    assert found(look(link, tmp_path), "counted-twice") == []


def test_a_socket_that_takes_packets_past_the_host(link: Link, tmp_path: Path) -> None:
    assert found(look(link, tmp_path), "af-xdp") == []
    with in_namespace(link.ns), socket.socket(AF_XDP, socket.SOCK_RAW):
        (warned,) = found(look(link, tmp_path), "af-xdp")
    assert (warned.severity, warned.what.rpartition(": ")[2]) == ("warning", "1")


def test_offloads_are_those_that_ethtool_shows(lab: Lab, link: Link, tmp_path: Path) -> None:
    for on in (True, False):
        lab.offload(link, on, "gro")
        (seen,) = (each for each in look(link, tmp_path).interfaces if each.link.name == link.name)
        assert seen.offloads["rx-gro"] == on
    shown = lab.run(link.ns, ["ethtool", "-k", link.name]).stdout
    for name in ("hw-tc-offload", "rx-gro-hw"):
        assert seen.offloads[name] == (f"{name}: on" in shown)
