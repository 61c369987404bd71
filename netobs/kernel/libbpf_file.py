"""Finds libbpf, and explains why an existing one is unusable."""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterator
from pathlib import Path

from netobs.base.errors import CaptureError

SONAME = "libbpf.so.1"
OLD_SONAME = "libbpf.so.0"
NEEDED = "1.0"  # has every function that netobs calls
_WHERE = f"libbpf {NEEDED} or newer: Debian 12, Ubuntu 24.04, EL 9 and Fedora have it (package libbpf1 or libbpf)"
_FOLDERS = ("/usr/lib/*-linux-*", "/usr/lib64", "/usr/lib", "/lib/*-linux-*", "/lib64", "/lib", "/usr/local/lib")
_ELF_IDENTITY = slice(4, 6)  # class and byte order
_ELF_MACHINE = slice(18, 20)
_MACHINES = {3: "i386", 20: "ppc", 21: "ppc64", 22: "s390x", 40: "arm", 62: "x86_64", 183: "aarch64", 243: "riscv",
             258: "loongarch"}  # fmt: skip


def open_library() -> ctypes.CDLL:
    """libbpf 1.x, loaded.

    :raises CaptureError: there is no usable one; the text names an unusable one, if there is one.
    """
    try:
        return ctypes.CDLL(SONAME, use_errno=True)
    except OSError as error:
        message = str(error)
    missing = f"{SONAME}: " in message and ("No such file" in message or "wrong ELF class" in message)
    if not missing:
        # It is there: broken, or without a library that it needs itself.
        raise CaptureError(f"{SONAME} cannot be loaded ({message})", "reinstall it (package libbpf1 or libbpf)")
    for path in _found(SONAME):
        machine = _foreign_machine(path)
        if machine:
            raise CaptureError(
                f"{path} is for another architecture ({machine}; this Python is {os.uname().machine})",
                f"install {_WHERE}",
            )
    with contextlib.suppress(OSError):
        ctypes.CDLL(OLD_SONAME)
        raise CaptureError(
            f"only {OLD_SONAME} is here: libbpf 0.x, as in Ubuntu 22.04 and EL 8, is too old", f"netobs needs {_WHERE}"
        )
    raise CaptureError(f"{SONAME} is not installed", f"install {_WHERE}")


def lacks(name: str) -> CaptureError:
    """The error for a loaded libbpf that has no function ``name``."""
    return CaptureError(f"{_loaded()} has no function {name}, which libbpf {NEEDED} has", f"install {_WHERE}")


def _found(soname: str) -> Iterator[Path]:
    """The files of this name where the loader looks for them, or where those of other architectures are."""
    for folder in filter(None, os.environ.get("LD_LIBRARY_PATH", "").split(":")):
        yield from Path(folder).glob(soname)
    for pattern in _FOLDERS:
        yield from Path("/").glob(f"{pattern[1:]}/{soname}")


def _foreign_machine(path: Path) -> str:
    """The architecture of a library; "" if it is this process's own, or the file is no ELF file."""
    try:
        with path.open("rb") as file, Path("/proc/self/exe").open("rb") as own:
            header, mine = file.read(20), own.read(20)
    except OSError:
        return ""
    if header[:4] != mine[:4] or len(header) < _ELF_MACHINE.stop:
        return ""
    if (header[_ELF_IDENTITY], header[_ELF_MACHINE]) == (mine[_ELF_IDENTITY], mine[_ELF_MACHINE]):
        return ""
    number = int.from_bytes(header[_ELF_MACHINE], "little" if header[5] == 1 else "big")
    name = _MACHINES.get(number, f"ELF machine {number}")
    return f"{name}, 32 bits" if header[4] == 1 and mine[4] == 2 else name


def _loaded() -> str:
    """The path of the libbpf in this process."""
    for line in Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace").splitlines():
        path = line.partition("/")[2]
        if path.rpartition("/")[2].startswith("libbpf"):
            return f"/{path}"
    return SONAME
