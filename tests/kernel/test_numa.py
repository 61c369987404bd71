"""Memory of the flow table on the NUMA nodes of the host. `make test-vm` has machines with two."""

from __future__ import annotations

import mmap
import re
import subprocess
import sys
from pathlib import Path

import pytest

from lab.prog_run import Programs
from netobs.kernel import numa

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(not numa.with_memory(), reason="this kernel was built without NUMA"),
]

ROOT = Path(__file__).parents[2]


def _fail_inside() -> None:
    with numa.interleaved([0]):
        assert numa.policy() == numa.MPOL_INTERLEAVE
        raise ZeroDivisionError


def test_policy_is_that_of_the_block_only() -> None:
    assert numa.policy() == numa.MPOL_DEFAULT
    with pytest.raises(ZeroDivisionError):
        _fail_inside()
    assert numa.policy() == numa.MPOL_DEFAULT


def test_policy_that_somebody_chose_stays() -> None:
    with numa.interleaved([0]):
        with numa.interleaved([0]):
            pass
        assert numa.policy() == numa.MPOL_INTERLEAVE


def test_loading_leaves_the_policy_as_it_was() -> None:
    with Programs(max_flows=64):
        assert numa.policy() == numa.MPOL_DEFAULT


@pytest.mark.skipif(len(numa.with_memory()) < 2, reason="this host has one NUMA node")
def test_slots_are_on_all_nodes() -> None:
    """Linux 7.2 gives pieces of up to 4 MiB in turn, older kernels pages."""
    with Programs(max_flows=1 << 18) as programs:
        slots = mmap.mmap(programs.map_fd("flow_slots"), 32 << 20, mmap.MAP_SHARED)
        sum(slots[:: mmap.PAGESIZE])  # a page is in the page table once it was touched
        pages = _pages_of_maps()
        slots.close()
    assert sorted(pages) == numa.with_memory()
    assert min(pages.values()) > sum(pages.values()) // (4 * len(pages))


def _pages_of_maps() -> dict[int, int]:
    """How many pages of BPF maps this process has mapped, by node."""
    pages: dict[int, int] = {}
    for line in Path("/proc/self/numa_maps").read_text(encoding="ascii").splitlines():
        if "anon_inode:bpf-map" in line:
            for node, number in re.findall(r"\bN(\d+)=(\d+)", line):
                pages[int(node)] = pages.get(int(node), 0) + int(number)
    return pages


REFUSED = """
import logging
from netobs.kernel import numa
logging.basicConfig(level=logging.INFO, format="%(message)s")
with numa.interleaved([0]):
    print(numa.policy())
"""


def test_refusal_is_said_and_nothing_else() -> None:
    """As by a container's seccomp filter."""
    argv = [sys.executable, "-m", "lab.seccomp", "238", "EPERM", sys.executable, "-c", REFUSED]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == f"{numa.MPOL_DEFAULT}\n"
    assert done.stderr == "the flow table is on one of 1 NUMA nodes: set_mempolicy: Operation not permitted\n"
