"""How much memory the maps take on hosts of any size. Figures from bpf/netobs.h and the kernel's hash maps, by hand."""

from __future__ import annotations

import mmap
from pathlib import Path

import pytest

from netobs.datapath.batch import hash_map_bytes
from netobs.datapath.datapath import RING_BYTES
from netobs.datapath.interface_counts import InterfaceCounts, row_key, rows_for
from netobs.datapath.layout import FLOW_SLOT, FLOW_START
from netobs.datapath.ledger import Ledger
from netobs.datapath.percpu_array import LEAST_SLOTS, PercpuArray, slots_per_cpu
from netobs.datapath.percpu_hash import PercpuHash
from netobs.datapath.ring import RingBuffer
from netobs.datapath.ring_only import RingOnly
from netobs.kernel.libbpf import online_cpus

MIB = 1 << 20
CPUS = (1, 2, 80, 256)
MAX_FLOWS = (64, 1000, 1024, 65_535, 65_536, 65_537, 1_000_000, 16_777_216)


def array(max_flows: int, cpus: int) -> PercpuArray:
    return PercpuArray(max_flows, cpus)


def percpu_hash(max_flows: int, cpus: int) -> PercpuHash:
    return PercpuHash(max_flows, cpus)


@pytest.mark.parametrize("max_flows", MAX_FLOWS)
@pytest.mark.parametrize("cpus", CPUS)
def test_slots_are_a_power_of_two_that_holds_the_share_of_a_cpu(cpus: int, max_flows: int) -> None:
    slots = slots_per_cpu(max_flows, cpus)
    assert slots & (slots - 1) == 0
    assert slots >= LEAST_SLOTS
    assert slots * cpus >= max_flows
    assert slots == LEAST_SLOTS or (slots // 2) * cpus < max_flows  # and no more than that


@pytest.mark.parametrize(
    ("max_flows", "cpus", "slots"),
    [
        (65_536, 1, 65_536),
        (65_536, 2, 32_768),
        (65_537, 2, 65_536),
        (65_536, 80, 1024),
        (1_000_000, 80, 16_384),
        (16_777_216, 1, 16_777_216),
        (16_777_216, 256, 65_536),
    ],
)
def test_slots_of_known_hosts(max_flows: int, cpus: int, slots: int) -> None:
    assert slots_per_cpu(max_flows, cpus) == max(slots, LEAST_SLOTS)


@pytest.mark.parametrize("page_bytes", [4096, mmap.PAGESIZE])
@pytest.mark.parametrize("max_flows", MAX_FLOWS)
@pytest.mark.parametrize("cpus", CPUS)
def test_each_region_begins_with_a_page(cpus: int, max_flows: int, page_bytes: int) -> None:
    """Else it could not be mapped alone."""
    for dtype in (FLOW_SLOT, FLOW_START):
        assert slots_per_cpu(max_flows, cpus) * dtype.itemsize % page_bytes == 0


@pytest.mark.parametrize("cpus", CPUS)
def test_index_of_the_last_slot_fits_32_bits(cpus: int) -> None:
    assert 2 * cpus * slots_per_cpu(max(MAX_FLOWS), cpus) < 1 << 32


def test_floor_fills_pages_of_this_host() -> None:
    assert LEAST_SLOTS >= 1024
    assert LEAST_SLOTS & (LEAST_SLOTS - 1) == 0
    assert LEAST_SLOTS * FLOW_START.itemsize % mmap.ALLOCATIONGRANULARITY == 0


def test_hash_map_has_buckets_and_entries() -> None:
    """16 bytes a bucket, of which there is a power of two; 48 bytes for each entry besides key and value."""
    assert hash_map_bytes(1, 8, 8) == 1 * 16 + 1 * 64
    assert hash_map_bytes(1024, 56, 64) == 1024 * 16 + 1024 * 168
    assert hash_map_bytes(1025, 56, 64) == 2048 * 16 + 1025 * 168


@pytest.mark.parametrize("max_flows", MAX_FLOWS)
@pytest.mark.parametrize("cpus", CPUS)
def test_memory_of_the_array_is_slots_and_overflow(cpus: int, max_flows: int) -> None:
    slots = 2 * cpus * slots_per_cpu(max_flows, cpus) * (64 + 32)
    overflow = 2 * (max_flows * 168 + 16 * (1 << (max_flows - 1).bit_length()))
    assert array(max_flows, cpus).kernel_bytes() == slots + overflow


def test_memory_of_the_hash_has_a_value_for_each_cpu() -> None:
    """A pointer for each entry, and 64 bytes for each entry and CPU."""
    assert percpu_hash(65_536, 2).kernel_bytes() == 2 * 65_536 * (16 + 48 + 48 + 8 + 2 * 64)
    more = percpu_hash(65_536, 3).kernel_bytes() - percpu_hash(65_536, 2).kernel_bytes()
    assert more == 2 * 65_536 * 64


def test_no_table_takes_no_memory() -> None:
    assert RingOnly().kernel_bytes() == 0


@pytest.mark.parametrize(
    ("interfaces", "namespaces", "rows"),
    [
        (0, False, 512), (1, False, 512), (128, False, 512), (129, False, 1024), (500, False, 2048),
        (4000, False, 16_384), (100_000, False, 16_384), (1, True, 4096), (600, True, 8192),
    ],
)  # fmt: skip
def test_rows_of_interfaces(interfaces: int, namespaces: bool, rows: int) -> None:
    """Two for each interface and direction; as many bytes as the kernel's array takes."""
    assert rows_for(interfaces, namespaces) == rows
    assert InterfaceCounts(64, rows).kernel_bytes() == 64 * rows * 64


def test_small_namespaces_begin_far_from_each_other() -> None:
    """Ten interfaces with both directions each, in as many namespaces as the rows are made for."""
    places = sorted({(row_key(number, 4096) + index) % 4096 for number in range(1, 33) for index in range(2, 22)})
    assert len(places) == 32 * 20


@pytest.mark.parametrize("cpus", [256])
def test_large_hosts_are_not_charged_for_each_cpu(cpus: int) -> None:
    """The paper's table is the one that is: 2.0 GiB for 65,536 flows on a host with 256 possible CPUs."""
    rest = RingBuffer(RING_BYTES).kernel_bytes() + Ledger(cpus).kernel_bytes()
    rest += InterfaceCounts(cpus).kernel_bytes()
    assert array(65_536, cpus).kernel_bytes() + rest < 100 * MIB
    assert RingOnly().kernel_bytes() + rest < 25 * MIB
    assert 2050 * MIB < percpu_hash(65_536, cpus).kernel_bytes() < 2100 * MIB


@pytest.mark.parametrize("cpus", CPUS)
def test_memory_of_the_array_grows_with_the_flows_not_with_the_cpus(cpus: int) -> None:
    """At most twice the slots that the flows need, for rounding, or the floor."""
    for max_flows in MAX_FLOWS:
        one = array(max_flows, 1).kernel_bytes()
        floor = 2 * cpus * LEAST_SLOTS * 96
        assert array(max_flows, cpus).kernel_bytes() <= 2 * one + floor


@pytest.mark.parametrize(
    ("text", "cpus"),
    [
        ("0", 1),
        ("0-1", 2),
        ("0-3,8-11", 12),
        ("0,2-5", 6),
        ("0-3,9", 10),
        ("1", 2),
        ("0-255", 256),
        ("0-7,16-23,32", 33),
    ],
)
def test_online_cpus(tmp_path: Path, text: str, cpus: int) -> None:
    """The highest number counts: the programs find a CPU's slots by it."""
    path = tmp_path / "online"
    path.write_text(text + "\n")
    assert online_cpus(path) == cpus


def test_online_cpus_of_this_host() -> None:
    assert online_cpus() >= 1
