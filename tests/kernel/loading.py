"""Loads one filter program, for whoever may not, or has no libpcap: run in a process of its own."""

from __future__ import annotations

import ctypes
import os
import sys

from netobs.capture import libbpf
from netobs.errors import CaptureError
from netobs.pcap.filters import compile_filter
from netobs.pcap.filters.program import load_filter
from netobs.pcap.layout import COPY_SLOTS, LINK_ETHERNET
from netobs.pcap.selection import Selection

PROGRAM_ARRAY, PERCPU_ARRAY = 3, 6  # enum bpf_map_type


def load_one() -> None:
    """Says that it was loaded, or ends with the message."""
    create, options = libbpf.library().bpf_map_create, libbpf.MapCreateOpts(ctypes.sizeof(libbpf.MapCreateOpts))
    programs = libbpf.checked(create(PROGRAM_ARRAY, b"programs", 4, 4, 8, ctypes.byref(options)), "map")
    matches = libbpf.checked(create(PERCPU_ARRAY, b"matches", 4, 4, 1, ctypes.byref(options)), "map")
    chosen = [(0, Selection(compile_filter(["tcp,80"])))]
    try:
        os.close(load_filter(chosen, LINK_ETHERNET, COPY_SLOTS[0], programs, matches))
    except CaptureError as error:
        sys.exit(str(error))
    print("loaded, and the simple form")
