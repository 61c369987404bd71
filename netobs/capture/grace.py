"""Waiting until no CPU is still inside a BPF program that was started before."""

from __future__ import annotations

import ctypes
import errno
import os
import platform

from netobs.errors import CaptureError

MEMBARRIER_CMD_GLOBAL = 1
_MEMBARRIER = {"x86_64": 324, "aarch64": 283, "riscv64": 283, "ppc64le": 365, "s390x": 356, "loongarch64": 283}


class GracePeriod:
    """``wait`` returns after a grace period: a program that saw the old ``active_half`` has ended.

    membarrier(MEMBARRIER_CMD_GLOBAL) is synchronize_rcu() (kernel/sched/membarrier.c), and TC programs run as RCU
    readers. A kernel booted with nohz_full refuses it with EINVAL.
    """

    def __init__(self) -> None:
        self._syscall = ctypes.CDLL(None, use_errno=True).syscall
        self._syscall.restype = ctypes.c_long
        self._number = _MEMBARRIER.get(platform.machine())

    def wait(self) -> None:
        """Waits, typically for some milliseconds.

        :raises CaptureError: the kernel has no way to wait that we know.
        """
        if self._number is None:
            raise CaptureError(f"no membarrier system call known for {platform.machine()}")
        if self._syscall(self._number, MEMBARRIER_CMD_GLOBAL, 0, 0) < 0:
            number = ctypes.get_errno()
            reason = "the kernel runs with nohz_full" if number == errno.EINVAL else os.strerror(number)
            raise CaptureError(f"membarrier: {reason}", "remove nohz_full from the kernel's command line")
