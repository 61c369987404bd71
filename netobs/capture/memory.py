"""Whether the host has the memory that the maps take."""

from __future__ import annotations

from pathlib import Path

from netobs.errors import CaptureError

MIB = 1 << 20


def check_memory(max_flows: int, needed_bytes: int) -> None:
    """Before anything is allocated: the kernel would take memory from other programs, up to killing them.

    :raises CaptureError: the maps need more than the host has left.
    """
    for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
        name, _, value = line.partition(":")
        available_bytes = int(value.split()[0]) * 1024 if name == "MemAvailable" else needed_bytes
        if available_bytes < needed_bytes:
            raise CaptureError(
                f"capture.max_flows = {max_flows} needs {needed_bytes / MIB:.0f} MiB of kernel memory, "
                f"the host has {available_bytes / MIB:.0f} MiB left",
                "lower it",
                may_pass=True,
            )
