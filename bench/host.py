"""Describes the machine of the figures."""

from __future__ import annotations

import ctypes
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import numpy as np

from netobs import __version__
from netobs.kernel import libbpf


def describe() -> dict[str, Any]:
    """Machine, kernel, versions, and the load by other processes."""
    version = libbpf.library().libbpf_version_string
    version.restype = ctypes.c_char_p
    return {
        "cpu": _field("/proc/cpuinfo", "model name"),
        "cpus": os.cpu_count(),
        "memory": _field("/proc/meminfo", "MemTotal"),
        "kernel": platform.release(),
        "architecture": platform.machine(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "libbpf": version().decode(),
        "clang": _first_line("clang", "--version"),
        "netobs": __version__,
        "revision": _first_line("git", "describe", "--always", "--dirty"),
        "load_average": load_average(),
    }


def load_average() -> list[float]:
    """Load averages of 1, 5 and 15 minutes: other processes make the figures worse."""
    return [round(value, 2) for value in os.getloadavg()]


def _field(path: str, name: str) -> str:
    for line in Path(path).read_text(encoding="ascii", errors="replace").splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return ""


def _first_line(*argv: str) -> str:
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=20, check=False, cwd=Path(__file__).parent)
    except FileNotFoundError:
        return ""
    return done.stdout.partition("\n")[0]
