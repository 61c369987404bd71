"""The tests that depend on the kernel, in kernels of distributions: netobs loads, counts and attaches there as here."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.vm import machine
from tests.vm.kernels import CACHE, KERNELS, Kernel

pytestmark = pytest.mark.vm(tools=machine.TOOLS)

TIMEOUT_S = 3600  # on a machine that is busy with other things; on an idle one it takes less than a quarter of that
CONSOLE_LINES = 30
SLOWEST = 3
# Since when a kernel has what the tests of this expression rely on.
SINCE = {
    "test_gso and test_tcp and not off": (5, 13),  # GRO on a veth without an XDP program (veth_set_features)
    "names_and_sockets_are_those_of_the_namespaces": (5, 14),  # SO_NETNS_COOKIE
    "udp_segmentation": (6, 1),  # super-packets of UDP on a veth: not in 5.10
    "super_packet_that and udp": (6, 2),  # VIRTIO_NET_HDR_GSO_UDP_L4, by which the test makes one
    "memory_is_said": (6, 4),  # what a map takes, in /proc/PID/fdinfo (map_mem_usage)
    "big_packet": (6, 6),  # sent by a packet socket: more than 17 pages (alloc_skb_with_frags)
    "tcx": (6, 6),  # TCX links; before, the daemon attaches by clsact
    "link_of_a_killed_predecessor or into_our_link or link_that_somebody or without_a_keeper or left_of_a_stop": (6, 6),
}

JOB = """\
export NETOBS_REQUIRE_KERNEL=1 NETOBS_WAIT_S=120
modprobe tun # makes its device file
ulimit -l unlimited # before Linux 5.11 maps count; tests of a daemon that is not root drop the right to raise it
exec {pytest}
"""
PYTEST = (sys.executable, "-m", "pytest", "-v", "--color=no", "-p", "no:cacheprovider", "--tb=short")
RESULTS = "--junitxml=/run/results/junit.xml"
# What depends on the kernel: the programs and their verifier, tables, hooks, sockets, and the daemon around them.
# Not here, since no kernel changes it: other collectors and protocols, templates, TLS, groups, `netobs listen`, the
# spool's files, and the tests of the laboratory itself.
E2E = (
    "capture_alone dry_run exact going_on gso interfaces namespaces neighbours overload requirements restart selftest "
    "shutdown stats tables wire"
)
TESTS = (*(f"tests/e2e/test_{name}.py" for name in E2E.split()), "tests/kernel")
# Slow here, and the same in all kernels: thousands of frames for the parser alone.
LEFT_OUT = ("--ignore=tests/kernel/test_common.py", "--ignore=tests/kernel/test_fuzz.py")
SLOW = (
    "ring_goes_round or hash_spreads_flows",
    "each_flow_has_what_was_sent and not 1]",  # one seed of three
    "ring_does_not_take and percpu_hash",
    "test_parse and (percpu_hash or ringbuf)",  # the parser has one source; the other tables have tests of their own
    "test_dry_run and not the_plan",  # of the configuration: no kernel is asked
    "test_requirements and dry",  # as without --dry-run
    "restart and (over_udp or tls)",  # which sockets refuse and what TCP acknowledged, over_a_connection[tcp] asks too
    "test_interfaces and not comes_back",  # which names match; test_links in tests/kernel has the rest
    "a_signal_asks and (percpu_hash or ringbuf)",
    "test_filters and (not_optimize or 0x88a8 or 0xffff)",  # the same instructions again, other constants
    "strict_reader or small_flow_cache or second_signal or start_for_who_debugs",  # of user space
    "takes_nothing or sampled_packets or sending_side",
    "exactly_what_was_sent or each_flow_is_right and icmp",  # each_flow_is_right looks closer
    "test_neighbours and 5",  # one that stands behind us; test_attach in tests/kernel has more
    "what_clang_makes and not 14]",  # the emulator takes minutes to compile; 14 is Debian 12's
    "what_counts_wrong_is_found",  # likewise
    "test_make_run or kill_leaves_nothing or says_what_is_lacking",  # around the selftest, which runs for each table
    "SIGINT or ENOSYS-Function",  # the same as SIGTERM and EINVAL
    # A matter of load: here the emulator would be measured. The smaller plans of the same tests run.
    "test_exact and nothing_is_lost",
    "test_gso and test_tcp and ipv4",  # ten times as much as IPv6
    "test_tables and not (1000] or percpu_array-5000)",
    "every_packet_is_there or many_selections",  # the same in hundreds of rounds
    "each_packet_is_accounted_for",  # the reader here needs longer than the 4 s that a daemon takes to end
)


# Kernels that run these tests only: for what they differ in, another kernel of their kind runs all.
RT = ("preemption", "clock", "numa", "percpu_hash", "table")
ONLY = {"newest-rt": [f"tests/kernel/test_{name}.py" for name in RT]}


@dataclass(frozen=True)
class Results:
    """What pytest in the machine left."""

    passed: int
    skipped: list[str]
    failed: list[str]
    slowest: list[str]

    @classmethod
    def read(cls, path: Path) -> Results:
        passed = 0
        skipped: list[str] = []
        failed: list[str] = []
        cases = list(ElementTree.parse(path).iter("testcase"))
        for case in cases:
            problem = next((child for child in case if child.tag in {"failure", "error"}), None)
            said = problem if problem is not None else case.find("skipped")
            if said is None:
                passed += 1
            else:
                first_line = (said.get("message") or "").partition("\n")[0]
                (skipped if problem is None else failed).append(
                    f"{case.get('classname')}::{case.get('name')}: {first_line}"
                )
        cases.sort(key=_seconds, reverse=True)
        return cls(passed, skipped, failed, [f"{case.get('name')} {_seconds(case):.0f} s" for case in cases[:SLOWEST]])


def _seconds(case: ElementTree.Element) -> float:
    return float(case.get("time", "0"))


def arguments(name: str, under_test: Kernel) -> Sequence[str]:
    """What pytest is to run in this kernel."""
    version = tuple(int(number) for number in under_test.release.split(".")[:2])
    lacking = [expression for expression, since in SINCE.items() if version < since]
    left_out = " or ".join(f"({expression})" for expression in (*SLOW, *lacking))
    return [*PYTEST, RESULTS, *ONLY.get(name, TESTS), *LEFT_OUT, "-k", f"not ({left_out})"]


@pytest.mark.parametrize("name", KERNELS)
def test_the_kernel_tests_pass(fetch: Callable[[str], Kernel], report: list[str], name: str) -> None:
    under_test = fetch(name)
    job = JOB.format(pytest=shlex.join(arguments(name, under_test)))
    outcome = machine.run(under_test, job, CACHE / "runs" / under_test.release, TIMEOUT_S)
    times = f"boot {outcome.boot_s:.0f} s, tests {outcome.job_s:.0f} s"
    junit = outcome.console.parent / "results" / "junit.xml"
    if not outcome.status or not junit.exists():
        report.append(f"{under_test.release}: no results, status {outcome.status!r}; {times}; {outcome.console}")
        console = outcome.console.read_text(encoding="utf-8", errors="replace").splitlines()
        pytest.fail("\n".join(["the tests did not end, the last lines:", *console[-CONSOLE_LINES:]]), False)
    results = Results.read(junit)
    counts = f"{results.passed} passed, {len(results.failed)} failed, {len(results.skipped)} skipped"
    report.append(f"{under_test.release}: {counts}; {times}; slowest: {', '.join(results.slowest)}")
    report.extend(f"  skipped: {said}" for said in results.skipped)
    assert results.failed == [], f"all that was said: {outcome.console}"
    assert outcome.status == "0", f"pytest ended with {outcome.status}: {outcome.console}"
