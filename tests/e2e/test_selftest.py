"""``netobs selftest`` on this kernel: it passes here, fails where something counts wrong, and leaves nothing."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lab.daemon import Daemon, configuration
from lab.machine import BPF_SYSCALL
from lab.namespaces import Lab, command
from lab.prog_run import wait_until_gone
from lab.programs import WAIT_FACTOR, gone, wait_until
from lab.traffic import REPOSITORY
from netobs.kernel.object import PROGRAMS
from netobs.selftest.site import NEAR

pytestmark = pytest.mark.e2e

SELFTEST = [sys.executable, "-m", "netobs", "selftest"]
WITHIN_S = 60 * WAIT_FACTOR
BOTH = ("UDP", "ICMP echo", "TCP")
IPV6 = {"two VLAN tags", "IPv6 fragments", *(f"{name} over IPv6" for name in BOTH)}
IPV4 = {"VLAN tag", "IPv4 fragments", "padding behind IP", "IPv4 and TCP options", "super-packet of ten segments"}
IPV4 |= {f"{name} over IPv4" for name in BOTH}
ACCOUNT = "seen = exported + ledger"


@pytest.mark.parametrize(
    ("table", "attach"),
    [("percpu_array", "auto"), ("percpu_hash", "tc"), ("ringbuf", "auto")],
)
def test_every_count_is_right(lab: Lab, tmp_path: Path, table: str, attach: str) -> None:
    """In a namespace whose interfaces nobody else changes, with folders that nobody else writes to."""
    ns = lab.namespace()
    before = lab.links(ns)
    here = ["env", "-C", str(tmp_path), f"TMPDIR={tmp_path}"]
    done = lab.run(ns, [*here, *SELFTEST, "--json", "--flows", "--table", table, "--attach", attach], timeout=WITHIN_S)
    result = json.loads(done.stdout)
    assert (result["ok"], [each["table"] for each in result["tables"]]) == (True, [table])
    (run,) = result["tables"]
    checks = {each["name"]: each for each in run["checks"]}
    assert IPV4 | IPV6 | {ACCOUNT} < set(checks)
    for name in (*IPV4, *IPV6, ACCOUNT):
        assert checks[name]["sent"] == checks[name]["exported"]
        assert checks[name]["sent"]["packets"] >= 60  # ten of each frame, in three rounds and two directions
    flows = sum(flow["packetDeltaCount"] for flow in run["flows"])
    ledger = sum(each["exported"]["packets"] for name, each in checks.items() if name.startswith("in the ledger"))
    assert checks[ACCOUNT]["exported"]["packets"] == flows + ledger
    assert run["method"] in (("tcx", "tc") if attach == "auto" else (attach,))
    assert all(run["cost_ns"][which] > 0 for which in ("empty", "ingress", "egress"))
    assert run["log"] == []
    assert lab.links(ns) == before
    assert [*tmp_path.iterdir()] == []


def test_what_counts_wrong_is_found(tmp_path: Path) -> None:
    """Programs with two mistakes: the hop limit of IPv6, and the octets of later fragments. Nothing else is called
    wrong."""
    for folder in ("netobs", "bpf", "templates"):
        shutil.copytree(REPOSITORY / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__", "*.o"))
    _break(tmp_path / "bpf/ip.bpf.h", "pkt->ttl = hdr->hop_limit;", "pkt->ttl = 1;")
    _break(tmp_path / "bpf/ip.bpf.h", "pkt->octets = ip->octets;", "pkt->octets = ip->octets - ip->later_fragment;")
    command(["make", "-s", "-C", str(tmp_path / "bpf"), "../netobs/bpf/netobs.bpf.o"])
    argv = [*SELFTEST, "--table", "percpu_array"]
    done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "")
    assert set(re.findall(r"^  FAILED  ([^:\n]+)", done.stdout, re.MULTILINE)) == {*IPV6, "IPv4 fragments", ACCOUNT}
    assert "UDP over IPv6: 240 packets" in done.stdout
    assert re.search(
        r"out, 2001:db8::1 port 40001 -> .*, protocol 17: minimumTTL 1, not 64$", done.stdout, re.MULTILINE
    )
    assert re.search(r"port 0 -> 203\.0\.113\.2 port 0, protocol 17: 16,170 octets of 16,200: 30 too few", done.stdout)
    assert re.search(r"^7 of \d+ checks FAILED", done.stdout, re.MULTILINE)


def _break(path: Path, right: str, wrong: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count(right) == 1
    path.write_text(text.replace(right, wrong), encoding="utf-8")


def test_a_kill_leaves_nothing(lab: Lab, tmp_path: Path) -> None:
    """SIGKILL to the command, while another process has namespaces, programs and maps for it. A daemon notices none of
    it."""
    _, host = lab.pair()
    with Daemon(lab, host.ns, tmp_path, configuration()) as daemon:
        process = lab.popen(host.ns, [*SELFTEST, "--table", "percpu_array"], stdout=subprocess.DEVNULL)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        wait_until(lambda: len(_kernel_objects(children, "prog")) > len(PROGRAMS), "the programs are loaded")
        (child,) = children.read_text(encoding="ascii").split()
        left = [*_kernel_objects(children, "prog"), *_kernel_objects(children, "map")]
        namespace = os.readlink(f"/proc/{child}/ns/net")
        assert {kind for kind, _ in left} == {"prog", "map"}
        process.kill()
        wait_until(lambda: gone(int(child)), "the other process has ended")
        wait_until_gone(*left)
        assert namespace not in {_namespace(folder) for folder in Path("/proc").iterdir() if folder.name.isdigit()}
        assert namespace not in command(["cat", "/proc/self/mountinfo"]).stdout
        assert not [*Path("/run/netobs").glob("*selftest*")]
        assert NEAR.name not in daemon.log


def _kernel_objects(children: Path, kind: str) -> list[tuple[str, int]]:
    """("prog", number) of each program that the child has a descriptor of; likewise of maps."""
    found: set[tuple[str, int]] = set()
    for child in children.read_text(encoding="ascii").split():
        for info in Path(f"/proc/{child}/fdinfo").iterdir():
            try:
                text = info.read_text(encoding="ascii")
            except (FileNotFoundError, ProcessLookupError):  # closed meanwhile
                continue
            found.update((kind, int(number)) for number in re.findall(rf"^{kind}_id:\t(\d+)$", text, re.MULTILINE))
    return sorted(found)


def _namespace(process: Path) -> str:
    try:
        return os.readlink(process / "ns/net")
    except (FileNotFoundError, PermissionError, ProcessLookupError):  # it has ended, or is in a container of its own
        return ""


@pytest.mark.parametrize(
    ("lacking", "said"),
    [
        ("sys_admin", "cannot make namespaces for the test: Operation not permitted; run it as root (CAP_SYS_ADMIN,"),
        ("net_raw", "cannot open the sockets that send the test's packets: Operation not permitted; run it as root"),
        ("bpf", "netobs_empty: the kernel refused it: "),
    ],
    ids=["sys_admin", "net_raw", "bpf"],
)
def test_one_sentence_says_what_is_lacking(lab: Lab, lacking: str, said: str) -> None:
    prefix = ["setpriv", f"--bounding-set=-{lacking}", f"--inh-caps=-{lacking}"]
    if lacking == "bpf":
        prefix = [sys.executable, "-m", "lab.seccomp", str(BPF_SYSCALL[platform.machine()]), "ENOSYS"]
    done = lab.run(lab.namespace(), [*prefix, *SELFTEST], check=False, timeout=WITHIN_S)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"netobs: {said}")


def test_make_run_shows_flows_on_a_silent_host(lab: Lab, tmp_path: Path) -> None:
    """A newcomer always sees some: those of the test, in the end, and a line that says so."""
    near, _ = lab.pair()
    script = ["sh", str(REPOSITORY / "tools/run.sh"), str(Path(sys.prefix, "bin", "netobs"))]
    done = lab.run(near.ns, ["env", "RUN_SECONDS=1", f"TMPDIR={tmp_path}", *script], timeout=WITHIN_S)
    lines = done.stdout.splitlines()
    says = next(number for number, line in enumerate(lines) if "traffic of its own" in line)
    assert not any("->" in line for line in lines[:says])
    shown = [line for line in lines[says:] if "->" in line]
    assert len(shown) > 20
    assert any("TCP" in line and "192.0.2.1:40001" in line for line in shown)
    assert [*tmp_path.iterdir()] == []
