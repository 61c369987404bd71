"""Waits for an RCU grace period: until no CPU still runs a BPF program that started before."""

from __future__ import annotations

import ctypes
import errno
import logging
import os
import threading

from netobs.base import capabilities, clock
from netobs.base.errors import CaptureError
from netobs.base.histogram import Histogram
from netobs.kernel import libbpf

log = logging.getLogger("netobs.capture")

MEMBARRIER_CMD_GLOBAL = 1
_MEMBARRIER = {"x86_64": 324, "aarch64": 283, "riscv64": 283, "ppc64le": 365, "s390x": 356, "loongarch64": 283}


class GracePeriod:
    """``wait`` returns after a grace period: a program that saw the old ``active_half`` has ended.

    TC programs run as RCU readers, and two system calls wait for these: membarrier(MEMBARRIER_CMD_GLOBAL)
    (kernel/sched/membarrier.c), which a kernel booted with nohz_full refuses with EINVAL; and an update of a map of
    maps (kernel/bpf/syscall.c: maybe_wait_bpf_programs), which works everywhere but needs two small maps.
    """

    def __init__(self, membarrier: bool = True) -> None:
        """``membarrier``: False skips the first way."""
        self._syscall = ctypes.CDLL(None, use_errno=True).syscall
        self._syscall.restype = ctypes.c_long
        self._number = _MEMBARRIER.get(os.uname().machine) if membarrier else None
        self._outer = self._inner = -1
        self._lock = threading.Lock()
        self.waited = Histogram()

    def wait(self) -> None:
        """Waits, typically for some milliseconds. May be called in a thread.

        :raises CaptureError: neither way works.
        """
        began_ns = clock.monotonic_ns()
        with self._lock:
            self._wait()
        self.waited.add(clock.monotonic_ns() - began_ns)

    def _wait(self) -> None:
        if self._number is not None:
            if self._syscall(self._number, MEMBARRIER_CMD_GLOBAL, 0, 0) == 0:
                return
            number = ctypes.get_errno()
            self._number = None
            why = "this kernel runs with nohz_full" if number == errno.EINVAL else os.strerror(number)
            log.info("membarrier cannot be used (%s): waiting for programs by updating a map of maps", why)
        try:
            self._update_map_of_maps()
        except OSError as error:
            raise CaptureError(
                f"no way to wait until the programs let go of the flow table: {error.strerror}"
            ) from None

    def _update_map_of_maps(self) -> None:
        if self._outer < 0:
            with capabilities.taken_up(capabilities.BPF):
                self._inner = libbpf.create_map(libbpf.MAP_TYPE_ARRAY, "netobs_inner")
                self._outer = libbpf.create_map(libbpf.MAP_TYPE_ARRAY_OF_MAPS, "netobs_outer", self._inner)
        libbpf.update_u32(self._outer, 0, self._inner)

    def close(self) -> None:
        """Frees the maps, if there are any."""
        with self._lock:
            for fd in (self._outer, self._inner):
                if fd >= 0:
                    os.close(fd)
            self._outer = self._inner = -1
