"""The capabilities that BPF needs (capabilities(7)): explains a refusal of the kernel, and sets them aside.

netobs asks the kernel first, and explains afterwards. A check in advance could miss a right that the kernel grants in
another way, such as by a BPF token, or by the verifier of a host without mitigations.
"""

from __future__ import annotations

import errno
import os

from netobs.base import capabilities
from netobs.kernel import host, libbpf

TO_LOAD = capabilities.BPF | capabilities.NET_ADMIN | capabilities.PERFMON
_SYS_ADMIN = 21  # in place of each of them, as before Linux 5.8 (include/linux/bpf.h: bpf_token_capable)
NEEDED = {
    "CAP_BPF": (39, "to create maps and load programs"),
    "CAP_NET_ADMIN": (12, "to load programs for the TC hook and to set filters"),
    "CAP_PERFMON": (38, "for the verifier to let programs compute where in a packet a header begins"),
}
"""Each with its bit, and what for."""
_FIRST_USER_NAMESPACE = ["0", "0", "4294967295"]
SECCOMP_FILTER = "2"


def lacking() -> list[str]:
    """The names of the needed capabilities that this process does not have in effect."""
    return missing_in(int(status("CapEff") or "f" * 16, 16))  # all where /proc does not say


def missing_in(held: int) -> list[str]:
    """The names of the needed capabilities that are not in the set ``held``, a bit each."""
    return [name for name, (bit, _) in NEEDED.items() if not held & (1 << bit | 1 << _SYS_ADMIN)]


def set_aside() -> None:
    """The programs are loaded: takes out of effect what is needed for moments only, as another load and filters are.
    TCX links, shared memory, batches and test runs need no capability; before Linux 6.0 every call of bpf() needs
    CAP_BPF where kernel.unprivileged_bpf_disabled is set (kernel/bpf/syscall.c: __sys_bpf)."""
    before = capabilities.in_effect()
    capabilities.set_aside(TO_LOAD)
    if not libbpf.reaches_kernel():
        capabilities.take_up(before & capabilities.BPF)


def keep_only(mask: int) -> None:
    """Drops all capabilities but those of ``mask`` for good. Root also keeps what its files and its children of another
    user need, and leaves these what they need to become that user."""
    of_root = capabilities.DAC_OVERRIDE | capabilities.KILL
    capabilities.keep_only(mask | of_root, for_programs=capabilities.SETGID | capabilities.SETUID)


def held() -> list[str]:
    """The names of the needed capabilities that this process is permitted to have."""
    permitted = capabilities.permitted()
    return [name for name, (bit, _) in NEEDED.items() if permitted & 1 << bit]


def explain(number: int) -> tuple[str, str]:
    """The problem behind errno ``number`` of a load, and what to do. Empty if no capability is missing.

    EPERM comes for lack of CAP_BPF or CAP_NET_ADMIN (kernel/bpf/syscall.c: bpf_prog_load). Without CAP_PERFMON the
    verifier returns EACCES, or in Linux 5.10 EFAULT, because it also follows the paths that a CPU only speculates on.
    """
    names = lacking() if number in (errno.EPERM, errno.EACCES, errno.EFAULT) else []
    return (f"not permitted: {_missing(names)}", grant(names)) if names else ("", "")


def explain_filters() -> tuple[str, str]:
    """The message if the kernel refuses this process's filters. CAP_SYS_ADMIN does not suffice for rtnetlink."""
    return _missing(["CAP_NET_ADMIN"]), grant(["CAP_NET_ADMIN"])


def _missing(names: list[str]) -> str:
    return ", ".join(f"{name} is missing (needed {NEEDED[name][1]})" for name in names)


def grant(names: list[str]) -> str:
    """How this process gets the capabilities ``names``."""
    if os.geteuid() == 0:  # a unit or a container took root's capabilities away
        return f"add {' '.join(names)} to CapabilityBoundingSet= of the unit, or to what the container may"
    return f"run as root, or add {' '.join(names)} to AmbientCapabilities= of the unit"


def forbidden_by() -> str:
    """Why a process with the capabilities may still not call bpf(), and what to do."""
    if host.read_if_there("/proc/self/uid_map").split() not in (_FIRST_USER_NAMESPACE, []):
        return "capabilities of a user namespace do not count: run it outside (PrivateUsers= of the unit, a container)"
    if status("Seccomp") == SECCOMP_FILTER:
        return "a seccomp filter forbids bpf(): add it to SystemCallFilter= of the unit, or to the container's profile"
    return "a security module forbids it: look for a denial in the kernel's and the audit log"


def status(key: str) -> str:
    """A line of /proc/self/status, "" if there is none."""
    for line in host.read_if_there("/proc/self/status").splitlines():
        name, _, value = line.partition(":")
        if name == key:
            return value.strip()
    return ""
