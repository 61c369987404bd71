"""What this machine lacks for tests that need root, BPF and network namespaces."""

from __future__ import annotations

import ctypes
import functools
import os
import platform
import shutil

from lab.namespaces import Lab, LabError

BPF_SYSCALL = {"x86_64": 321, "aarch64": 280, "riscv64": 280, "ppc64le": 361, "s390x": 351}
BPF_MAP_CREATE = 0
BPF_MAP_TYPE_ARRAY = 2


def _bpf_problem() -> str:
    number = BPF_SYSCALL.get(platform.machine())
    if number is None:
        return f"the number of the bpf system call on {platform.machine()} is not known to lab/machine.py"
    libc = ctypes.CDLL(None, use_errno=True)
    attributes = (ctypes.c_uint32 * 18)(BPF_MAP_TYPE_ARRAY, 4, 8, 1)
    fd = libc.syscall(number, BPF_MAP_CREATE, ctypes.byref(attributes), ctypes.sizeof(attributes))
    if fd < 0:
        return f"no BPF map can be made: {os.strerror(ctypes.get_errno())}"
    os.close(fd)
    return ""


@functools.cache
def kernel_problem() -> str:
    """Why this machine cannot run tests that need root, BPF and namespaces; "" if it can."""
    if os.geteuid() != 0:
        return "root is needed"
    if not shutil.which("ip"):
        return "the program ip (iproute2) is missing"
    try:
        with Lab() as lab:
            lab.namespace("try")
    except (LabError, OSError) as error:
        return f"no network namespace can be made: {error}"
    return _bpf_problem()
