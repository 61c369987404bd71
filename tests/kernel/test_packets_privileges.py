"""What the rings need besides what loading programs does: nothing but memory and file descriptors."""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys

import pytest

from lab.cgroups import inside, memory_cgroup
from lab.namespaces import Lab, command
from lab.privileges import CAPABILITIES, unprivileged
from lab.traffic import REPOSITORY
from netobs.base.capabilities import BPF, NET_ADMIN, PERFMON
from netobs.kernel.requirements import MEMLOCK_UNTIL, kernel_version

pytestmark = pytest.mark.kernel(tools=("setpriv", "mount"))

MIB, KIB = 1 << 20, 1 << 10
AS_LOCKED_MEMORY = kernel_version(os.uname().release) < MEMLOCK_UNTIL
PERF_EVENT_OPEN = {"x86_64": "298", "aarch64": "241"}.get(platform.machine(), "")
UNLIMITED = -1
TCX_SINCE = (6, 6)

CAPTURE = """
import os, resource, socket, sys, time
from netobs.base.errors import CaptureError
from netobs.config.selector import InterfaceSelector
from netobs.pcap.filters import compile_filter
from netobs.pcap.selection import Selection
from netobs.pcap.tap.tap import Tap

wanted, lock, files = map(int, sys.argv[1:])
if lock >= 0:
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (lock, lock))
tap = Tap(InterfaceSelector(["lo"]), "egress", wanted)
try:
    tap.load()
    if files >= 0:
        most = max(map(int, os.listdir("/proc/self/fd"))) + files
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    tap.select(Selection(compile_filter(["udp,9"])), time.monotonic_ns())
except CaptureError as error:
    sys.exit(f"netobs: {error}")
sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sender.connect(("127.0.0.1", 9))
while not tap.count().copied:
    sender.send(b"hello")
batch = tap.read(1 << 20, time.monotonic_ns())
at, size = int(batch.start[0]), int(batch.meta["caplen"][0])
print(bytes(batch.buffer[at : at + size])[-5:].decode())
"""

OPERATIONS = """
import sys
from netobs.base import capabilities
from netobs.base.errors import CaptureError
from netobs.config.selector import InterfaceSelector
from netobs.kernel import attach, libbpf, many
from netobs.kernel.interfaces import ARPHRD_ETHERNET, Interface
from netobs.pcap.filters import compile_filter
from netobs.pcap.filters.program import FilterProgram
from netobs.pcap.selection import LINK_ETHERNET, Selection
from netobs.pcap.tap.rings import PacketRings
from netobs.pcap.tap.tap import PACKETS_PLACE, Tap
from netobs.kernel.privileges import TO_LOAD, set_aside

tap, lo = Tap(InterfaceSelector(["lo"]), "egress", 1 << 20), Interface(1, "lo", ARPHRD_ETHERNET[0])
tap.load()
tap.select(Selection(compile_filter(["udp,9"])), 0)
capabilities.keep_only(TO_LOAD & ~int(sys.argv[1]))
set_aside()
programs = tap._programs
maps = programs.map_fd("packet_programs"), programs.map_fd("packet_matches")
selection = Selection(compile_filter(["tcp,80"]))

def once(method):
    attach.attach(lo, "ingress", programs.program_fd("packets_ingress"), method, PACKETS_PLACE).detach()

operations = {
    "a ring": lambda: PacketRings(1 << 17).open(programs.map_fd("packet_rings")),
    "a filter": lambda: FilterProgram([(0, selection)], LINK_ETHERNET, 0, *maps).load(),
    "by tcx": lambda: once("tcx"),
    "by tc": lambda: once("tc"),
    "a stream": lambda: (tap.own_stream("192.0.2.1", 9), tap.forget_stream("192.0.2.1", 9)),
    "packets": lambda: (tap.read(1 << 20, 0), tap.losses(0), tap.count()),
    "the end": lambda: tap.release(0, 0),
}
for name, do in operations.items():
    try:
        do()
    except (CaptureError, OSError):
        print(name)
"""
FAILS = {
    "": [],
    "bpf": ["a ring", "a filter"],
    "net_admin": ["a filter", "by tc"],
    "perfmon": ["a filter"],
}
"""What fails without a capability."""


def capture(
    lab: Lab, *arguments: int, prefix: tuple[str, ...] = (), capabilities: tuple[str, ...] = CAPABILITIES
) -> subprocess.CompletedProcess[str]:
    """Captures one packet on the loopback of a namespace of its own as an unprivileged user. ``arguments``: bytes of a
    ring, the limit of locked memory, and file descriptors beside those that are open (-1: as the limits are)."""
    argv = [*prefix, sys.executable, "-c", CAPTURE, *map(str, arguments)]
    return lab.run(lab.namespace(), unprivileged(argv, [REPOSITORY / "lab"], capabilities), check=False)


@pytest.mark.skipif(not PERF_EVENT_OPEN, reason="the number of perf_event_open is not known here")
@pytest.mark.parametrize("error", ["EACCES", "ENOSYS"])
def test_the_capabilities_of_the_package_do_where_perf_events_are_refused(lab: Lab, error: str) -> None:
    """As Debian's and Ubuntu's kernels refuse them to whoever has no CAP_SYS_ADMIN, and others that have none."""
    refused = (sys.executable, "-m", "lab.seccomp", PERF_EVENT_OPEN, error)
    done = capture(lab, MIB, UNLIMITED, UNLIMITED, prefix=refused)
    assert (done.returncode, done.stdout, done.stderr) == (0, "hello\n", "")


def test_without_a_capability(lab: Lab) -> None:
    done = capture(lab, MIB, UNLIMITED, UNLIMITED, capabilities=("bpf", "net_admin"))
    assert done.returncode == 1
    assert "packets.bpf.o: the kernel refused it: not permitted: CAP_PERFMON is missing" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(kernel_version(os.uname().release) < TCX_SINCE, reason="this kernel has no TCX")
@pytest.mark.parametrize("missing", FAILS)
def test_what_each_capability_is_for_after_the_start(lab: Lab, missing: str) -> None:
    """Each client may bring a filter that has to be loaded, which takes all three. So none can be given up for good."""
    bits = {"": 0, "bpf": BPF, "net_admin": NET_ADMIN, "perfmon": PERFMON}[missing]
    argv = [sys.executable, "-c", OPERATIONS, str(bits)]
    done = lab.run(lab.namespace(), unprivileged(argv, [REPOSITORY / "lab"]), check=False)
    assert (done.returncode, done.stdout.splitlines()) == (0, FAILS[missing]), done.stderr


@pytest.mark.alone  # all processes of the user share it
def test_locked_memory(lab: Lab, report: list[str]) -> None:
    """Only kernels that count maps as locked memory ask for any."""
    done = capture(lab, MIB, 64 * KIB, UNLIMITED)
    if AS_LOCKED_MEMORY:
        assert done.returncode == 1
        assert "set LimitMEMLOCK=infinity in the unit, or ulimit -l unlimited" in done.stderr.splitlines()[-1]
        report.append(done.stderr.splitlines()[-1])
    else:
        assert (done.returncode, done.stdout, done.stderr) == (0, "hello\n", "")


def test_file_descriptors(lab: Lab) -> None:
    done = capture(lab, MIB, UNLIMITED, 1)
    refused = "no ring buffer of 1024 KiB for each CPU can be made: Too many open files"
    hint = "raise LimitNOFILE= of the unit, or ulimit -n"
    assert (done.returncode, done.stderr) == (1, f"netobs: {refused}; {hint}\n")


@pytest.mark.skipif(AS_LOCKED_MEMORY, reason="this kernel does not count maps as memory of a cgroup")
def test_memory() -> None:
    with memory_cgroup(192 * MIB) as folder:
        argv = [*inside(folder), sys.executable, "-c", CAPTURE, str(256 * MIB), "-1", "-1"]
        for _ in range(5):
            done = command(argv, check=False)
            if done.returncode != -signal.SIGKILL:  # by the kernel, if another thread asked while nothing was left
                break
    refused = "no ring buffer of 262144 KiB for each CPU can be made: Cannot allocate memory"
    assert (done.returncode, done.stderr) == (1, f"netobs: {refused}; lower packet_capture.buffer\n")
