"""The capabilities that netobs needs: without one it says which and what for; others that do as well are taken."""

from __future__ import annotations

import os
import platform
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from lab.daemon import KEPT, Daemon, configuration, netobs, traffic_control
from lab.machine import BPF_SYSCALL
from lab.namespaces import Lab, Link
from lab.privileges import CAPABILITIES, IN_EFFECT, USER
from lab.programs import wait_until
from lab.traffic import Traffic
from netobs.base import capabilities

pytestmark = pytest.mark.e2e(tools=("setpriv", "mount", "unshare"))

PURPOSES = {
    "bpf": "CAP_BPF is missing (needed to create maps and load programs)",
    "net_admin": "CAP_NET_ADMIN is missing (needed to load programs for the TC hook and to set filters)",
    "perfmon": "CAP_PERFMON is missing "
    "(needed for the verifier to let programs compute where in a packet a header begins)",
}
KEPT_FROM_IT = ("setpriv", "--bounding-set=-perfmon,-sys_admin")
REFUSED = "netobs.bpf.o: the kernel refused it"
# struct sock_fprog: load the number; if it is that of bpf, EPERM, else allow (linux/seccomp.h).
WITHOUT_BPF = f"""
import ctypes, os, struct, sys
rules = struct.pack("=" + "HBBI" * 4, 0x20, 0, 0, 0, 0x15, 0, 1, {BPF_SYSCALL.get(platform.machine(), 0)},
                    6, 0, 0, 0x50001, 6, 0, 0, 0x7FFF0000)
buffer = ctypes.create_string_buffer(rules)
program = struct.pack("HxxxxxxP", 4, ctypes.addressof(buffer))
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0 and libc.prctl(22, 2, program, 0, 0) == 0
os.execvp(sys.argv[1], sys.argv[1:])
"""


@pytest.fixture
def host(lab: Lab) -> Link:
    """The interface veth0 of a namespace."""
    return lab.pair()[1]


@pytest.fixture(params=["--dry-run", ""], ids=["dry run", "daemon"])
def option(request: pytest.FixtureRequest) -> list[str]:
    return str(request.param).split()


def write(tmp_path: Path, **capture: str) -> str:
    path = tmp_path / "netobs.toml"
    path.write_text(configuration(capture), encoding="utf-8")
    return str(path)


def problem(text: str) -> str:
    """The only line in which ``--dry-run`` or the daemon says what is wrong."""
    (line,) = [line for line in text.splitlines() if line.startswith(("problem: ", "netobs: "))]
    return line.partition(": ")[2]


@pytest.mark.parametrize("missing", [*((name,) for name in CAPABILITIES), CAPABILITIES], ids="+".join)
def test_what_is_missing_is_said(
    lab: Lab, host: Link, tmp_path: Path, option: list[str], missing: tuple[str, ...]
) -> None:
    rest = [name for name in CAPABILITIES if name not in missing]
    done = netobs(lab, host.ns, "--conf", write(tmp_path), *option, capabilities=rest)
    assert done.returncode == 1
    assert "Traceback" not in done.stdout + done.stderr
    names = " ".join(f"CAP_{name.upper()}" for name in missing)
    assert problem(done.stdout + done.stderr) == (
        f"{REFUSED}: not permitted: {', '.join(PURPOSES[name] for name in missing)}; "
        f"run as root, or add {names} to AmbientCapabilities= of the unit"
    )


def test_root_who_is_kept_from_it(lab: Lab, host: Link, tmp_path: Path, option: list[str]) -> None:
    done = netobs(lab, host.ns, "--conf", write(tmp_path), *option, prefix=KEPT_FROM_IT)
    assert done.returncode == 1
    assert problem(done.stdout + done.stderr) == (
        f"{REFUSED}: not permitted: {PURPOSES['perfmon']}; "
        "add CAP_PERFMON to CapabilityBoundingSet= of the unit, or to what the container may"
    )


def test_the_verifiers_log_is_not_what_one_has_to_read(lab: Lab, host: Link, tmp_path: Path) -> None:
    done = netobs(lab, host.ns, "--conf", write(tmp_path), capabilities=["bpf", "net_admin"])
    assert "BPF program load failed: Permission denied" in done.stderr
    assert "R1" not in done.stderr


def test_the_right_to_administrate_the_system_does_as_well(lab: Lab, host: Link, tmp_path: Path) -> None:
    for held in (["sys_admin", "net_admin"], CAPABILITIES):
        done = netobs(lab, host.ns, "--conf", write(tmp_path, attach="tc"), "--dry-run", capabilities=held)
        assert (done.returncode, done.stderr) == (0, "")


def test_it_does_not_do_for_filters(lab: Lab, host: Link, tmp_path: Path, option: list[str]) -> None:
    done = netobs(lab, host.ns, "--conf", write(tmp_path, attach="tc"), *option, capabilities=["sys_admin"])
    assert done.returncode == 1
    assert problem(done.stdout + done.stderr) == (
        f"{PURPOSES['net_admin']}; run as root, or add CAP_NET_ADMIN to AmbientCapabilities= of the unit"
    )


def test_root_of_a_user_namespace(lab: Lab, host: Link, tmp_path: Path, option: list[str]) -> None:
    done = netobs(lab, host.ns, "--conf", write(tmp_path), *option, prefix=("unshare", "--user", "--map-root-user"))
    assert done.returncode == 1
    assert problem(done.stdout + done.stderr) == (
        f"{REFUSED}: Operation not permitted; capabilities of a user namespace do not count: "
        "run it outside (PrivateUsers= of the unit, a container)"
    )


@pytest.mark.skipif(platform.machine() not in BPF_SYSCALL, reason="the number of bpf() is not known here")
def test_a_filter_of_system_calls(lab: Lab, host: Link, tmp_path: Path, option: list[str]) -> None:
    done = netobs(lab, host.ns, "--conf", write(tmp_path), *option, prefix=(sys.executable, "-c", WITHOUT_BPF))
    assert done.returncode == 1
    assert problem(done.stdout + done.stderr) == (
        f"{REFUSED}: Operation not permitted; a seccomp filter forbids bpf(): "
        "add it to SystemCallFilter= of the unit, or to the container's profile"
    )


def test_nothing_else_is_held(lab: Lab, host: Link, tmp_path: Path) -> None:
    """What the other tests call unprivileged is that."""
    with Daemon(lab, host.ns, tmp_path, configuration(), as_user=True) as daemon:
        status = Path(f"/proc/{daemon.process.pid}/status").read_text(encoding="ascii")
        fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        assert fields["Uid"].split() == [str(USER)] * 4
        held = sum(1 << bit for bit in (39, 12, 38))
        assert {int(fields[name], 16) for name in ("CapPrm", "CapBnd", "CapAmb")} == {held}
        assert fields["NoNewPrivs"] == "1"
        wait_until(lambda: "netobs ready" in daemon.log, "it runs")
        daemon.finish()


@pytest.mark.parametrize("attach", ["auto", "tc"])
def test_what_only_loading_needs_is_set_aside(lab: Lab, tmp_path: Path, attach: str) -> None:
    """A new interface is attached to all the same, packet capture starts again."""
    _, far = lab.pair()
    packets = {"enabled": True, "listen": str(tmp_path / "capture")}
    table = {"interfaces": ["*"], "attach": attach, "drop_capabilities": True}
    config = configuration(table, packet_capture=packets)
    with Daemon(lab, far.ns, tmp_path, config, as_user=True) as daemon:
        method = "tcx" if f"{far.name}: attached by tcx" in daemon.log else "tc"
        status = Path(f"/proc/{daemon.process.pid}/status").read_text(encoding="ascii")
        effective = next(line for line in status.splitlines() if line.startswith("CapEff:"))
        assert int(effective.split()[1], 16) == IN_EFFECT
        lab.run(far.ns, ["ip", "link", "add", "later", "type", "bridge"])
        daemon.wait_for(f"later: attached by {method}")
        daemon.wait_for("kept: CAP_BPF CAP_NET_ADMIN CAP_PERFMON, for packet capture")
        before = daemon.capture_process()
        os.kill(before.pid, signal.SIGKILL)
        wait_until(lambda: daemon.log.count("packet capture: listening on") == 2, "packet capture runs again")
        daemon.finish()


def permitted(pid: int) -> set[int]:
    """CapPrm of each thread of a process."""
    found = set()
    for task in os.listdir(f"/proc/{pid}/task"):
        lines = Path(f"/proc/{pid}/task/{task}/status").read_text(encoding="ascii").splitlines()
        found |= {int(line.split()[1], 16) for line in lines if line.startswith("CapPrm:")}
    return found


KEPT_BY = {
    "links": ({"attach": "tcx"}, 0, "kept: none"),
    "filters": ({"attach": "tc"}, capabilities.NET_ADMIN, "kept: CAP_NET_ADMIN, to set and remove filters"),
}


@pytest.mark.parametrize(("capture", "kept", "said"), KEPT_BY.values(), ids=KEPT_BY)
def test_what_nothing_needs_any_more_is_given_up_for_good(
    lab: Lab, tmp_path: Path, capture: dict[str, Any], kept: int, said: str
) -> None:
    """Interfaces that come later are measured, a reload works but for what would have to be loaded, a stop leaves
    nothing."""
    sender, far = lab.pair()
    table = {"interfaces": ["*"], "drop_capabilities": True, "eviction_interval": "100ms", **capture}
    with Daemon(lab, far.ns, tmp_path, configuration(table, KEPT), as_user=True) as daemon:
        daemon.wait_for(said)
        pid = daemon.process.pid
        wait_until(lambda: permitted(pid) == {kept | IN_EFFECT}, f"it has what it needs, not {permitted(pid)}")
        lab.run(far.ns, ["ip", "link", "add", "later", "type", "bridge"])
        daemon.wait_for(f"later: attached by {capture['attach']}")
        lab.run(far.ns, ["ip", "link", "delete", "later"])
        daemon.wait_for("later: gone")
        log = daemon.reload(
            configuration({**table, "max_flows": 128, "direction": "ingress"}, KEPT, packet_capture={"enabled": True})
        )
        for name in ("[capture] max_flows", "[packet_capture] enabled"):
            assert f"{name} takes effect at the next start: restart netobs" in log
        daemon.wait_for(f"{far.name}: detached, egress")
        Traffic(packets=100, flows=10).send(lab, sender)
        account = daemon.finish()
    assert (account.seen.packets, account.is_balanced()) == (100, True)
    assert "netobs" not in traffic_control(lab, far.ns)
    assert "clsact" not in lab.run(far.ns, ["tc", "qdisc", "show"]).stdout
