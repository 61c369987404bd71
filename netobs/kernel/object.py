"""The BPF object: open, configure, load. Nothing here attaches or sends."""

from __future__ import annotations

import ctypes
import errno
import logging
import mmap
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Callable, Protocol

import numpy as np

from netobs.base import capabilities
from netobs.base.errors import CaptureError
from netobs.kernel import libbpf, privileges, requirements

log = logging.getLogger("netobs.capture")

OBJECT = Path(__file__).resolve().parent.parent / "bpf" / "netobs.bpf.o"
PROGRAMS = ("netobs_ingress", "netobs_egress", "netobs_l3_ingress", "netobs_l3_egress")
"""Those that are attached."""
VERIFIER_LINES = 12


class LoadedObject(Protocol):
    """Maps and programs in the kernel, loaded by this process or a former one."""

    def map_fd(self, name: str) -> int: ...

    def program_fd(self, name: str) -> int: ...

    def shared(self, name: str, size_bytes: int, writable: bool = False) -> mmap.mmap: ...

    def close(self) -> None: ...


class BpfObject:
    """A BPF object file. ``open`` -> set sizes and settings -> ``load`` -> file descriptors -> ``close``."""

    def __init__(self, path: Path = OBJECT, size_hint: str = "lower capture.max_flows") -> None:
        """Opens ``path``; the kernel is not asked anything yet. ``size_hint``: what to do if its maps are too large.

        :raises CaptureError: the file is missing or no BPF object.
        """
        self.path = path
        self._size_hint = size_hint
        self.entries: dict[str, int] = {}
        """The sizes that were set."""
        self._lib = libbpf.library()
        if not path.exists():
            raise CaptureError(f"{path}: no such BPF object", "reinstall netobs, or run 'make bpf' in a source tree")
        libbpf.take_warnings()
        self._handle = self._lib.bpf_object__open_file(os.fsencode(path), None)
        if not self._handle:
            number = ctypes.get_errno()
            raise CaptureError(f"{path}: not a usable BPF object ({libbpf.error_text(number)})", "reinstall netobs")

    def __enter__(self) -> BpfObject:
        return self

    def __exit__(self, kind: type | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Frees programs and maps that nothing else holds. May be called twice."""
        if self._handle:
            self._lib.bpf_object__close(self._handle)
            self._handle = None

    def _map(self, name: str) -> int:
        handle: int | None = self._lib.bpf_object__find_map_by_name(self._handle, name.encode())
        if handle is None:
            raise CaptureError(f"{self.path}: no map {name}", "the object is of another version: reinstall netobs")
        return handle

    def set_max_entries(self, name: str, entries: int) -> None:
        """Sizes map ``name``. Before ``load``."""
        libbpf.checked(self._lib.bpf_map__set_max_entries(self._map(name), entries), f"size of map {name}")
        self.entries[name] = entries

    def leave_out(self, name: str) -> None:
        """Map ``name`` is not created: with these settings no program uses it. Before ``load``."""
        libbpf.checked(self._lib.bpf_map__set_autocreate(self._map(name), False), f"map {name}")

    def reuse(self, name: str, fd: int) -> None:
        """Map ``name`` is not created: the programs use the map ``fd``, which is duplicated. Before ``load``.

        :raises OSError: the map is of another kind.
        """
        libbpf.checked(self._lib.bpf_map__reuse_fd(self._map(name), fd), f"map {name}")

    def leave_out_program(self, name: str) -> None:
        """Program ``name`` is not loaded. Before ``load``."""
        libbpf.checked(self._lib.bpf_program__set_autoload(self._program(name), False), f"program {name}")

    def initial(self, section: str, dtype: np.dtype[np.void]) -> np.ndarray[tuple[int], np.dtype[np.void]]:
        """The variables of ``section`` as an array of one ``dtype``, to be written before ``load``.

        :raises CaptureError: the section has another size.
        """
        size = ctypes.c_size_t()
        address = self._lib.bpf_map__initial_value(self._map(section), ctypes.byref(size))
        if not address or size.value != dtype.itemsize:
            raise CaptureError(
                f"{self.path}: section {section} has {size.value} bytes, expected {dtype.itemsize}",
                "the object is of another version: reinstall netobs",
            )
        buffer = (ctypes.c_char * size.value).from_address(address)
        values: np.ndarray[tuple[int], np.dtype[np.void]] = np.frombuffer(memoryview(buffer), dtype=dtype)
        return values

    def shared(self, name: str, size_bytes: int, writable: bool = False) -> mmap.mmap:
        """The memory of a map that can be mapped, for instance ``.bss``. After ``load``; the caller closes it.

        libbpf maps sections for skeletons only: what ``bpf_map__initial_value`` gives is not the kernel's memory.
        """
        return map_memory(self.map_fd(name), size_bytes, writable)

    def load(self) -> None:
        """Loads maps and programs into the kernel, which verifies them.

        :raises CaptureError: says what the kernel refused; the verifier's last lines are logged.
        """
        libbpf.take_warnings()
        with capabilities.taken_up(privileges.TO_LOAD):
            result = self._lib.bpf_object__load(self._handle)
            if result != 0:
                too_large = f"{self._size_hint}, or the kernel's verifier found the program too complex"
                hints = {errno.ENOMEM: self._size_hint, errno.E2BIG: too_large}
                raise refused(self.path.name, -result, libbpf.take_warnings, hints)

    def map_fd(self, name: str) -> int:
        """File descriptor of map ``name``; it belongs to the object."""
        return libbpf.checked(self._lib.bpf_map__fd(self._map(name)), f"map {name}")

    def program_fd(self, name: str) -> int:
        """File descriptor of program ``name``; it belongs to the object."""
        return libbpf.checked(self._lib.bpf_program__fd(self._program(name)), f"program {name}")

    def _program(self, name: str) -> int:
        handle: int | None = self._lib.bpf_object__find_program_by_name(self._handle, name.encode())
        if not handle:
            raise CaptureError(f"{self.path}: no program {name}", "the object is of another version: reinstall netobs")
        return handle


def map_memory(fd: int, size_bytes: int, writable: bool) -> mmap.mmap:
    """The memory of the map ``fd``. The caller closes it."""
    pages = -(-size_bytes // mmap.PAGESIZE) * mmap.PAGESIZE
    protection = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
    return mmap.mmap(fd, pages, mmap.MAP_SHARED, protection)


def refused(
    what: str, number: int, verifier_log: Callable[[], Sequence[str]], hints: Mapping[int, str]
) -> CaptureError:
    """Why the kernel did not load ``what``, by errno ``number``, and what to do, perhaps from ``hints``. Unless the
    reason is known, ``verifier_log`` is asked, and its end goes to the log."""
    why, hint = privileges.explain(number)
    hint = hint or requirements.explanation(number)
    if not hint:
        for line in verifier_log()[-VERIFIER_LINES:]:
            log.error("libbpf: %s", line)
        hint = privileges.forbidden_by() if number == errno.EPERM else hints.get(number, "")
        hint = hint or "the lines above are what libbpf and the kernel's verifier said"
    text = f"{what}: the kernel refused it: {why or libbpf.error_text(number)}"
    return CaptureError(text, hint, may_pass=number == errno.ENOMEM)
