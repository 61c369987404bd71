"""The host: its kernel, what BPF may do there, CPUs, and the software that netobs runs on. Nothing is changed."""

from __future__ import annotations

import contextlib
import os
import platform
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from netobs import __version__
from netobs.base import clock
from netobs.base.errors import NetobsError
from netobs.doctor.finding import Finding, not_seen
from netobs.kernel import host, libbpf, privileges, requirements

BTF = Path("/sys/kernel/btf/vmlinux")
COMMAND_TIMEOUT_S = 5
_MANY_CPUS = 4
"""Times as many possible CPUs as there are take noticeable memory for nothing."""
_SETTINGS = {
    "unprivileged_bpf_disabled": "/proc/sys/kernel/unprivileged_bpf_disabled",
    "bpf_jit_enable": "/proc/sys/net/core/bpf_jit_enable",
    "bpf_stats_enabled": "/proc/sys/kernel/bpf_stats_enabled",
    "perf_event_paranoid": "/proc/sys/kernel/perf_event_paranoid",
}
"""What BPF may do; ``/proc/sys`` shows some of them to root only."""


def findings(has_tcx: bool | None) -> Iterator[Finding]:
    """``has_tcx``: None where it is not known."""
    yield from _kernel(has_tcx)
    yield from _library()
    yield from _bpf_settings()
    yield from _own_capabilities()
    yield from _cpus()
    yield _software()


def _kernel(has_tcx: bool | None) -> Iterator[Finding]:
    release = os.uname().release
    if requirements.kernel_version(release) < requirements.FLOOR:
        yield Finding(
            "kernel-too-old", "problem", f"kernel {release} is older than 5.10", netobs="the daemon does not start",
            remedy="boot a newer kernel",
        )  # fmt: skip
    words = {True: "has TCX", False: "has no TCX: netobs attaches by clsact filters", None: "may have TCX"}[has_tcx]
    btf = "BTF" if BTF.exists() else "no BTF, which netobs does not need"
    realtime = host.is_realtime()
    yield Finding(
        "kernel", "ok", f"kernel {release} {words}; {btf}; flow times resolve to {clock.tick_ns() / 1e6:g} ms"
    )
    if realtime:
        yield Finding(
            "preempt-rt", "note", "a PREEMPT_RT kernel", netobs="flows are measured; no packet capture from 6.18 on",
        )  # fmt: skip
    lockdown = host.read_if_there("/sys/kernel/security/lockdown")
    if "[none]" not in lockdown and lockdown:
        mode = lockdown.partition("[")[2].partition("]")[0]
        yield Finding("lockdown", "ok", f"kernel lockdown: {mode}", netobs="its programs read packets only, and load")
    if has_tcx is not True:
        for line in requirements.modules_that_cannot_load():
            yield Finding("module-missing", "problem", line, netobs="no clsact filter can be set")


def _library() -> Iterator[Finding]:
    try:
        version = libbpf.version()
    except NetobsError as error:
        yield Finding("libbpf", "problem", str(error), netobs="the daemon does not start", remedy=error.hint)
        return
    yield Finding("libbpf", "ok", f"libbpf {version.lstrip('v')}")
    if privileges.lacking():
        yield not_seen("the BPF features of the kernel", "with the capabilities of the daemon, or as root")
        return
    missing = [what for what, is_there in requirements.FEATURES.items() if not is_there()]
    if missing:
        yield Finding(
            "kernel-features", "problem", f"the kernel lacks {', '.join(missing)}", netobs="the daemon does not start",
            remedy="boot a kernel with them: Linux 5.10 and newer of distributions have it all",
        )  # fmt: skip
    else:
        yield Finding("kernel-features", "ok", "the kernel has what the daemon needs of BPF, batches included")


def _bpf_settings() -> Iterator[Finding]:
    values = {name: host.read_if_there(path).strip() for name, path in _SETTINGS.items()}
    shown = ", ".join(f"{name} {value}" for name, value in values.items() if value)
    yield Finding("bpf-settings", "ok", shown or "no setting of BPF is visible")
    if values["bpf_jit_enable"] == "0":
        yield Finding(
            "bpf-jit", "warning", "the kernel interprets BPF programs: net.core.bpf_jit_enable is 0",
            netobs="each packet costs several times as much", remedy="sysctl net.core.bpf_jit_enable=1",
        )  # fmt: skip
    if values["bpf_stats_enabled"] == "1":
        yield Finding(
            "bpf-stats", "note", "kernel.bpf_stats_enabled is 1: the kernel times each run of a program",
            netobs="each packet costs some 20 ns more", remedy="sysctl kernel.bpf_stats_enabled=0",
        )  # fmt: skip
    unread = [name for name in ("bpf_jit_enable",) if not values[name] and Path(_SETTINGS[name]).exists()]
    if unread:
        yield not_seen(", ".join(unread), "as root")


def _own_capabilities() -> Iterator[Finding]:
    """Of this process: root should have them all, and so should whoever runs the daemon."""
    missing = privileges.lacking()
    if not missing:
        yield Finding("capabilities", "ok", "this process has the capabilities that the daemon needs")
        return
    some = len(missing) < len(privileges.NEEDED)
    severity = "problem" if os.geteuid() == 0 else "warning" if some else "note"
    yield Finding(
        "capability-missing", severity, f"this process lacks {', '.join(missing)}",
        netobs="a daemon with the rights of this process would not start", remedy=privileges.grant(missing),
    )  # fmt: skip


def _cpus() -> Iterator[Finding]:
    with contextlib.suppress(NetobsError, OSError):
        online, possible = os.cpu_count() or 1, libbpf.possible_cpus()
        folder = "/sys/devices/system/cpu/cpu0/cpufreq"
        governor = host.read_if_there(f"{folder}/scaling_governor").strip()
        khz = host.read_if_there(f"{folder}/cpuinfo_max_freq").strip()
        words = [f"{online} CPUs, {possible} possible", f"up to {int(khz) / 1e6:.1f} GHz" if khz.isdigit() else ""]
        words.append(f"governor {governor}" if governor else "")
        yield Finding("cpu", "ok", ", ".join(filter(None, words)))
        if possible >= _MANY_CPUS * online:
            yield Finding(
                "possible-cpus", "note", f"the kernel is prepared for {possible} CPUs, and {online} are there",
                netobs="tables of the kernel take memory for each possible CPU",
                remedy=f"boot with possible_cpus={online}, or lower capture.max_flows",
            )  # fmt: skip


def _software() -> Finding:
    words = [f"netobs {__version__}", f"Python {platform.python_version()}", f"numpy {np.__version__}"]
    if Path("/run/systemd/system").is_dir():
        lines = output(["systemctl", "--version"]).splitlines()
        words.append(lines[0] if lines else "systemd")
    else:
        words.append("no systemd: set capture.pin to keep flows over a restart")
    return Finding("software", "ok", ", ".join(words))


def output(argv: Sequence[str], most_bytes: int = 1 << 20) -> str:
    """What a program of the host prints, cut; empty if it is not there, fails, or takes too long."""
    environment = {**os.environ, "LC_ALL": "C", "SYSTEMD_PAGER": "", "SYSTEMD_COLORS": "0"}
    try:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=COMMAND_TIMEOUT_S, check=False,
            env=environment,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout[-most_bytes:].decode("utf-8", "replace") if done.returncode == 0 else ""
