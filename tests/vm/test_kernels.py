"""The kernel tests in the kernels of distributions: the programs load, parse, count and attach there as here."""

from __future__ import annotations

import os
import platform
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.vm import machine
from tests.vm.kernels import CACHE, Kernel, KernelMissing, kernel

pytestmark = [
    pytest.mark.vm(tools=("qemu-system-x86_64", "busybox", "cpio", "apt-get", "dpkg-deb", "depmod", "modprobe")),
    pytest.mark.skipif(platform.machine() != "x86_64", reason="the kernels and the emulator are those of x86-64"),
]

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 1800
KERNELS = {"6.1": ("6.1", ""), "6.1-rt": ("6.1", "rt"), "6.12": ("6.12", "")}
CONSOLE_LINES = 30
# Since when a kernel has what the tests of this expression rely on.
SINCE = {
    "super_packet_that and udp": (6, 2),  # VIRTIO_NET_HDR_GSO_UDP_L4, by which the test makes one
    "memory_is_said": (6, 4),  # what a map takes, in /proc/PID/fdinfo (map_mem_usage)
    "tcx": (6, 6),  # TCX links; before, the daemon attaches by clsact
    "link_of_a_killed_predecessor": (6, 6),
}

JOB = """\
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TERM=dumb NETOBS_REQUIRE_KERNEL=1
export NETOBS_WAIT_S=120
ip link set lo up
modprobe tun # makes its device file
cd {root} && exec {pytest}
"""
PYTEST = (sys.executable, "-m", "pytest", "-v", "--color=no", "-p", "no:cacheprovider", "--tb=short")
RESULTS = "--junitxml=/run/results/junit.xml"
# What depends on the kernel: the programs and their verifier, the tables, the hooks, and the daemon around them.
TESTS = ("tests/kernel", "tests/e2e/test_exact.py::test_each_flow_is_right")
# Slow here, and the same in all kernels: thousands of frames for the parser alone, rings that go round and round.
LEFT_OUT = ("--ignore=tests/kernel/test_common.py", "--ignore=tests/kernel/test_fuzz.py")
SLOW = ("ring_goes_round", "hash_spreads_flows")


@dataclass(frozen=True)
class Results:
    """What pytest in the machine left."""

    passed: int
    skipped: list[str]
    failed: list[str]

    @classmethod
    def read(cls, path: Path) -> Results:
        passed = 0
        skipped: list[str] = []
        failed: list[str] = []
        for case in ElementTree.parse(path).iter("testcase"):
            problem = next((child for child in case if child.tag in {"failure", "error"}), None)
            said = problem if problem is not None else case.find("skipped")
            if said is None:
                passed += 1
            else:
                first_line = (said.get("message") or "").partition("\n")[0]
                (skipped if problem is None else failed).append(
                    f"{case.get('classname')}::{case.get('name')}: {first_line}"
                )
        return cls(passed, skipped, failed)


def arguments(under_test: Kernel) -> Sequence[str]:
    """What pytest is to run in this kernel."""
    version = tuple(int(number) for number in under_test.release.split(".")[:2])
    lacking = [expression for expression, since in SINCE.items() if version < since]
    return [*PYTEST, RESULTS, *TESTS, *LEFT_OUT, "-k", f"not ({' or '.join([*SLOW, *lacking])})"]


@pytest.mark.parametrize(("series", "flavour"), KERNELS.values(), ids=KERNELS.keys())
def test_the_kernel_tests_pass(report: list[str], series: str, flavour: str) -> None:
    try:
        under_test = kernel(series, flavour)
    except KernelMissing as error:
        report.append(f"{series} {flavour}: not run: {error}")
        if os.environ.get("NETOBS_REQUIRE_KERNEL") == "1":
            raise
        pytest.skip(str(error))
    job = JOB.format(root=shlex.quote(str(ROOT)), pytest=shlex.join(arguments(under_test)))
    outcome = machine.run(under_test, job, CACHE / "runs" / under_test.release, TIMEOUT_S)
    times = f"boot {outcome.boot_s:.0f} s, tests {outcome.job_s:.0f} s"
    junit = outcome.console.parent / "results" / "junit.xml"
    if not outcome.status or not junit.exists():
        report.append(f"{under_test.release}: no results, status {outcome.status!r}; {times}; {outcome.console}")
        console = outcome.console.read_text(encoding="utf-8", errors="replace").splitlines()
        pytest.fail("\n".join(["the tests did not end, the last lines:", *console[-CONSOLE_LINES:]]), False)
    results = Results.read(junit)
    counts = f"{results.passed} passed, {len(results.failed)} failed, {len(results.skipped)} skipped"
    report.append(f"{under_test.release}: {counts}; {times}")
    assert results.failed == [], f"all that was said: {outcome.console}"
    assert outcome.status == "0", f"pytest ended with {outcome.status}: {outcome.console}"
