"""A kernel or a host that lacks something: one sentence says what, and what to do."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path

import pytest

from lab.daemon import Daemon, configuration, netobs
from lab.machine import BPF_MAP_CREATE, BPF_SYSCALL
from lab.namespaces import Lab, Link
from lab.traffic import Traffic

pytestmark = pytest.mark.e2e(tools=("make",))

BPF = str(BPF_SYSCALL.get(platform.machine(), ""))
MEMBARRIER = {"x86_64": "324", "aarch64": "283", "riscv64": "283", "ppc64le": "365", "s390x": "356"}
SECCOMP = (sys.executable, "-m", "lab.seccomp")

# What starts netobs, and what it must say.
POORER = {
    "no bpf system call": (
        (*SECCOMP, BPF, "ENOSYS"),
        "function not implemented; a seccomp filter hides the bpf system call: allow bpf in",
    ),
    "no maps": (
        (*SECCOMP, f"{BPF}/{BPF_MAP_CREATE}", "EINVAL"),
        f"kernel {os.uname().release} lacks BPF arrays, BPF arrays that can be mapped (Linux 5.5), "
        "BPF ring buffers (Linux 5.8), which netobs needs: ",
    ),
}


@pytest.fixture
def host(lab: Lab) -> Link:
    """The interface veth0 of a namespace."""
    return lab.pair()[1]


@pytest.mark.parametrize("option", [["--dry-run"], []], ids=["dry run", "daemon"])
@pytest.mark.parametrize("poorer", POORER)
def test_what_is_lacking_is_said(lab: Lab, host: Link, tmp_path: Path, poorer: str, option: list[str]) -> None:
    prefix, said = POORER[poorer]
    conf = tmp_path / "netobs.toml"
    conf.write_text(configuration(), encoding="utf-8")
    done = netobs(lab, host.ns, "--conf", str(conf), *option, prefix=prefix)
    assert done.returncode == 1
    lines = (done.stdout + done.stderr).splitlines()
    assert sum(said.lower() in line.lower() for line in lines) == 1, lines
    assert not any("Traceback" in line or "ERROR libbpf" in line for line in lines), lines


@pytest.mark.parametrize(
    ("error", "why"), [("ENOSYS", "Function not implemented"), ("EINVAL", "this kernel runs with nohz_full")]
)
def test_without_membarrier(lab: Lab, tmp_path: Path, error: str, why: str) -> None:
    """Flows are taken out all the same, and nothing is lost."""
    near, far = lab.pair()
    prefix = (*SECCOMP, MEMBARRIER[platform.machine()], error)
    config = configuration({"eviction_interval": "100ms"})
    with Daemon(lab, far.ns, tmp_path, config, prefix=prefix) as daemon:
        daemon.wait_for(f"membarrier cannot be used ({why}): waiting for programs by updating a map of maps")
        Traffic(flows=100, packets=20_000).send(lab, near)
        account = daemon.finish()
    assert account.seen.packets == 20_000
    assert account.is_balanced()
