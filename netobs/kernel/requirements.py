"""After a refusal: names the missing feature of this kernel or host in one sentence. Unused if a start succeeds.

What the datapath needs of a kernel: TC programs, a ring buffer (5.8), arrays that can be mapped (5.5), the helpers of
bpf/ (the newest are of 5.8), and for each way to attach what attach.py says. No BTF of the kernel, no tracing.
"""

from __future__ import annotations

import errno
import os
import re
import resource
from collections.abc import Callable
from functools import partial
from pathlib import Path

from netobs.kernel import libbpf, privileges

FLOOR = (5, 10)  # the oldest that is tested; what is probed for here is in kernels from 5.8 on
MEMLOCK_UNTIL = (5, 11)  # from then on maps count as memory of the cgroup, not as locked memory
QDISC_MODULE, FILTER_MODULE = "sch_ingress", "cls_bpf"
CONFIG_OPTIONS = {QDISC_MODULE: "CONFIG_NET_SCH_INGRESS", FILTER_MODULE: "CONFIG_NET_CLS_BPF"}
MODULES = Path("/lib/modules")


def _has_map_type(kind: int) -> bool:
    return bool(libbpf.library().libbpf_probe_bpf_map_type(kind, None) == 1)


def _has_program_type(kind: int) -> bool:
    return bool(libbpf.library().libbpf_probe_bpf_prog_type(kind, None) == 1)


def _has_mappable_arrays() -> bool:
    try:
        os.close(libbpf.create_map(libbpf.MAP_TYPE_ARRAY, "netobs_probe", flags=libbpf.BPF_F_MMAPABLE))
    except OSError:
        return False
    return True


FEATURES: dict[str, Callable[[], bool]] = {
    "BPF programs for TC (Linux 4.1, CONFIG_NET)": partial(_has_program_type, libbpf.PROG_TYPE_SCHED_CLS),
    "BPF arrays": partial(_has_map_type, libbpf.MAP_TYPE_ARRAY),
    "BPF arrays that can be mapped (Linux 5.5)": _has_mappable_arrays,
    "BPF ring buffers (Linux 5.8)": partial(_has_map_type, libbpf.MAP_TYPE_RINGBUF),
}
"""The features that the datapath needs, newest last, each with its probe, which needs the right to load."""


def kernel_version(release: str) -> tuple[int, int]:
    """Of ``6.1.0-50-amd64``: (6, 1)."""
    numbers = re.match(r"(\d+)\.(\d+)", release)
    return (int(numbers[1]), int(numbers[2])) if numbers else (0, 0)


def explanation(number: int) -> str:
    """Why loading failed with errno ``number``, and what to do; "" if the reason is unknown here."""
    if number == errno.ENOSYS:
        return _no_system_call()
    if number == errno.EPERM:
        return _locked_memory()
    if number in (errno.ENOMEM, errno.E2BIG):
        return ""
    return _too_old()


def _no_system_call() -> str:
    if privileges.status("Seccomp") == privileges.SECCOMP_FILTER:
        return "a seccomp filter hides the bpf system call: allow bpf in the container's profile or the service's unit"
    return "this kernel was built without the bpf system call: CONFIG_BPF_SYSCALL is needed"


def _locked_memory() -> str:
    """Maps beyond RLIMIT_MEMLOCK are EPERM too, before Linux 5.11; libbpf raises the limit where it may."""
    release, (limit_bytes, _) = os.uname().release, resource.getrlimit(resource.RLIMIT_MEMLOCK)
    is_limited = kernel_version(release) < MEMLOCK_UNTIL and limit_bytes != resource.RLIM_INFINITY
    if not is_limited or "CAP_BPF" in privileges.lacking() or not libbpf.reaches_kernel():
        return ""
    return (
        f"maps count as locked memory in kernel {release}, and this process may lock {limit_bytes} bytes: "
        "set LimitMEMLOCK=infinity in the unit, or ulimit -l unlimited"
    )


def _too_old() -> str:
    release = os.uname().release
    missing = [what for what, is_there in FEATURES.items() if not is_there()]
    if missing:
        return f"kernel {release} lacks {', '.join(missing)}, which netobs needs: Linux 5.10 and newer have it all"
    if kernel_version(release) < FLOOR:
        return f"kernel {release} is too old: netobs needs Linux 5.10 or newer"
    return ""


def missing_module(module: str) -> str:
    """The message if TC does not know the kind of qdisc or filter that ``module`` provides."""
    return (
        f"kernel {os.uname().release} has no module {module} ({CONFIG_OPTIONS[module]}): `modprobe {module}` says why; "
        "it may be in a package of further modules for this kernel"
    )


def modules_that_cannot_load(modules: Path = MODULES) -> list[str]:
    """Missing modules that a clsact filter needs, in the words of ``missing_module``.

    It reads the files in ``modules`` and loads nothing. Empty if the modules are built in, loaded or loadable, or if
    these files are unreadable.
    """
    folder = modules / os.uname().release
    try:
        known = (folder / "modules.dep").read_text(encoding="utf-8") + (folder / "modules.builtin").read_text("utf-8")
    except OSError:
        return []
    return [
        missing_module(module)
        for module in (QDISC_MODULE, FILTER_MODULE)
        if f"/{module}.ko" not in known and not Path("/sys/module", module).exists()
    ]
