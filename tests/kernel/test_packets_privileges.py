"""What the perf buffer needs besides what BPF does: without it, one sentence says what is missing and what to do."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lab.namespaces import Lab
from lab.privileges import CAPABILITIES, unprivileged
from netobs.kernel.requirements import MEMLOCK_UNTIL, kernel_version
from netobs.pcap.tap.perf import _PERF_EVENT_OPEN

pytestmark = pytest.mark.kernel(tools=("setpriv", "mount"))

ROOT = Path(__file__).parents[2]
PARANOID = int(Path("/proc/sys/kernel/perf_event_paranoid").read_text(encoding="ascii"))
STRICTER = PARANOID > 2  # than the kernel's own sources: Debian's and Ubuntu's
MIB, KIB = 1 << 20, 1 << 10
AS_LOCKED_MEMORY = kernel_version(os.uname().release) < MEMLOCK_UNTIL
NUMBER = str(_PERF_EVENT_OPEN.get(os.uname().machine, ""))

TAPS = """
import logging, resource, sys, time
from netobs.config.selector import InterfaceSelector
from netobs.base.errors import CaptureError
from netobs.pcap.filters import compile_filter
from netobs.pcap.selection import Selection
from netobs.pcap.tap.tap import Tap

logging.basicConfig(format="%(message)s", level=logging.WARNING)
wanted, lock, count = map(int, sys.argv[1:])
if lock >= 0:
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (lock, lock))
taps = []
try:
    for _ in range(count):
        tap = Tap(InterfaceSelector(["lo"]), "both", wanted)
        taps.append(tap)
        tap.load()
        tap.select(Selection(compile_filter(["udp,9"])), time.monotonic_ns())
        print(tap._perf.bytes_per_cpu, flush=True)
except CaptureError as error:
    sys.exit(f"netobs: {error}")
"""
BUFFER = """
import sys
from netobs.base.errors import CaptureError
from netobs.pcap.tap.perf import PerfBuffer
try:
    PerfBuffer(1 << 20).open(-1)
except CaptureError as error:
    sys.exit(f"netobs: {error}")
"""


def as_user(
    lab: Lab, script: str, *arguments: int, capabilities: tuple[str, ...] = CAPABILITIES
) -> subprocess.CompletedProcess[str]:
    """Runs ``script`` as an unprivileged user in a namespace of its own."""
    argv = [sys.executable, "-c", script, *map(str, arguments)]
    return lab.run(lab.namespace(), unprivileged(argv, [], capabilities), check=False)


@pytest.mark.skipif(not STRICTER, reason="kernel.perf_event_paranoid is 2 or less")
def test_a_kernel_that_wants_more(lab: Lab, report: list[str]) -> None:
    done = as_user(lab, TAPS, 16 * mmap.PAGESIZE, -1, 1)
    refused = (
        f"netobs: no perf buffer can be opened: kernel.perf_event_paranoid is {PARANOID}, at which this kernel wants "
        "CAP_SYS_ADMIN; set kernel.perf_event_paranoid = 2 in /etc/sysctl.d, or add CAP_SYS_ADMIN to "
        "AmbientCapabilities= and CapabilityBoundingSet= of the unit"
    )
    assert (done.returncode, done.stderr) == (1, f"{refused}\n")
    done = as_user(lab, TAPS, 16 * mmap.PAGESIZE, -1, 1, capabilities=(*CAPABILITIES, "sys_admin"))
    assert (done.returncode, done.stdout) == (0, f"{16 * mmap.PAGESIZE}\n")
    report.append(refused)


@pytest.mark.skipif(STRICTER, reason="kernel.perf_event_paranoid is above 2: test_a_kernel_that_wants_more")
def test_the_capabilities_of_the_package_do(lab: Lab) -> None:
    """With locked memory enough for what is asked for."""
    done = as_user(lab, TAPS, 16 * mmap.PAGESIZE, -1 if AS_LOCKED_MEMORY else 4 * MIB, 1)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{16 * mmap.PAGESIZE}\n", "")


def test_without_the_right_to_perf_events(lab: Lab) -> None:
    if PARANOID < 1:
        pytest.skip("kernel.perf_event_paranoid is below 1: everybody may")
    done = as_user(lab, BUFFER, capabilities=("bpf", "net_admin"))
    assert (done.returncode, done.stderr) == (
        1,
        "netobs: no perf buffer can be opened: CAP_PERFMON is missing (needed to open perf events of a CPU); "
        "run as root, or add CAP_PERFMON to AmbientCapabilities= of the unit\n",
    )
    done = as_user(lab, TAPS, MIB, -1, 1, capabilities=("bpf", "net_admin"))
    assert done.returncode == 1
    assert "packets.bpf.o: the kernel refused it: not permitted: CAP_PERFMON is missing" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(not NUMBER, reason="the number of perf_event_open is not known here")
@pytest.mark.parametrize("error", ["EPERM", "ENOSYS"])
def test_a_filter_of_system_calls(error: str) -> None:
    what = {"EPERM": "Operation not permitted", "ENOSYS": "Function not implemented"}[error]
    argv = [sys.executable, "-m", "lab.seccomp", NUMBER, error, sys.executable, "-c", TAPS, str(MIB), "-1", "1"]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (
        1,
        f"netobs: no perf buffer can be opened: {what}; a seccomp filter forbids perf_event_open(): "
        "add it to SystemCallFilter= of the unit, or to the container's profile\n",
    )


@pytest.mark.skipif(STRICTER, reason="kernel.perf_event_paranoid is above 2: test_a_kernel_that_wants_more")
@pytest.mark.skipif(AS_LOCKED_MEMORY, reason="maps are locked memory too in this kernel: they do not fit either")
def test_locked_memory(lab: Lab, report: list[str]) -> None:
    """What each user may lock without a limit of their own is kernel.perf_event_mlock_kb for each CPU: rings of it."""
    free = int(Path("/proc/sys/kernel/perf_event_mlock_kb").read_text(encoding="ascii")) * KIB - mmap.PAGESIZE
    size = 1 << (free.bit_length() - 1)
    done = as_user(lab, TAPS, 4 * size, 0, 1)
    warning = (
        f"packet capture: the perf buffer has {size // KIB} KiB for each CPU instead of {4 * size // KIB}, as this "
        "process may lock no more memory: set LimitMEMLOCK=infinity in the unit, or ulimit -l unlimited"
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{size}\n", f"{warning}\n")
    done = as_user(lab, TAPS, 4 * size, 0, 2)  # the second finds nothing left
    refused = (
        f"netobs: this process may not lock the {16 * mmap.PAGESIZE // KIB} KiB for each CPU that the perf buffer "
        "needs at least; set LimitMEMLOCK=infinity in the unit, or ulimit -l unlimited"
    )
    assert (done.returncode, done.stdout) == (1, f"{size}\n")
    assert done.stderr.splitlines()[-1] == refused
    report += [warning, refused]
