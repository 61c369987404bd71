"""The maps of a filter program, and loading one in a process of its own, without the rights or without libpcap."""

from __future__ import annotations

import os
import sys

from netobs.base.errors import CaptureError
from netobs.kernel import libbpf
from netobs.pcap.filters import compile_filter
from netobs.pcap.filters.program import FilterProgram
from netobs.pcap.selection import LINK_ETHERNET, Selection
from netobs.pcap.tap.layout import COPY_SLOTS, FILTER_SLOTS

PROGRAM_ARRAY, PERCPU_ARRAY = 3, 6  # enum bpf_map_type


def create_maps() -> tuple[int, int]:
    """Descriptors of an empty program array, and of the per-CPU array for the mask."""
    create = libbpf.library().bpf_map_create
    programs = libbpf.checked(create(PROGRAM_ARRAY, b"programs", 4, 4, len(FILTER_SLOTS + COPY_SLOTS), None), "map")
    return programs, libbpf.checked(create(PERCPU_ARRAY, b"matches", 4, 4, 1, None), "map")


def load_one() -> None:
    """Says that it was loaded, or ends with the message."""
    programs, matches = create_maps()
    chosen = [(0, Selection(compile_filter(["tcp,80"])))]
    try:
        os.close(FilterProgram(chosen, LINK_ETHERNET, COPY_SLOTS[0], programs, matches).load())
    except CaptureError as error:
        sys.exit(str(error))
    print("loaded, and the simple form")
