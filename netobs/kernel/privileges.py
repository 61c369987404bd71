"""Explains a refusal of the kernel: the capabilities that BPF needs (capabilities(7)).

netobs asks the kernel first, and explains afterwards. A check in advance could miss a right that the kernel grants in
another way, such as by a BPF token, or by the verifier of a host without mitigations. Once the programs are loaded,
only filters and the map of maps of ``grace.py`` need capabilities; TCX links, shared memory, batches and test runs do
not.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

from netobs.kernel import host

_SYS_ADMIN = 21  # in place of each of them, as before Linux 5.8 (include/linux/bpf.h: bpf_token_capable)
_NEEDS = {
    "CAP_BPF": (39, "to create maps and load programs"),
    "CAP_NET_ADMIN": (12, "to load programs for the TC hook and to set filters"),
    "CAP_PERFMON": (38, "for the verifier to let programs compute where in a packet a header begins"),
}
PARANOID = Path("/proc/sys/kernel/perf_event_paranoid")
MAINLINE_PARANOID = 2
"""The highest level that the kernel's own sources know. Debian (3) and Ubuntu (4) add one, the default there, at which
they ask for CAP_SYS_ADMIN and nothing else (perf_paranoid_any in their kernel/events/core.c)."""
_LESS_STRICT = (
    f"set kernel.perf_event_paranoid = {MAINLINE_PARANOID} in /etc/sysctl.d, or add CAP_SYS_ADMIN to "
    "AmbientCapabilities= and CapabilityBoundingSet= of the unit"
)
_FIRST_USER_NAMESPACE = ["0", "0", "4294967295"]
SECCOMP_FILTER = "2"


def lacking() -> list[str]:
    """The names of the needed capabilities that this process does not have in effect."""
    held = _held()
    return [name for name, (bit, _) in _NEEDS.items() if not held & (1 << bit | 1 << _SYS_ADMIN)]


def _held() -> int:
    """The effective capabilities, a bit for each; all of them if /proc does not tell."""
    return int(status("CapEff") or "f" * 16, 16)


def explain(number: int) -> tuple[str, str]:
    """The problem behind errno ``number`` of a load, and what to do. Empty if no capability is missing.

    EPERM comes for lack of CAP_BPF or CAP_NET_ADMIN (kernel/bpf/syscall.c: bpf_prog_load), EACCES from a verifier that
    misses CAP_PERFMON.
    """
    names = lacking() if number in (errno.EPERM, errno.EACCES) else []
    return (f"not permitted: {_missing(names)}", _grant(names)) if names else ("", "")


def explain_filters() -> tuple[str, str]:
    """The message if the kernel refuses this process's filters. CAP_SYS_ADMIN does not suffice for rtnetlink."""
    return _missing(["CAP_NET_ADMIN"]), _grant(["CAP_NET_ADMIN"])


def _missing(names: list[str]) -> str:
    return ", ".join(f"{name} is missing (needed {_NEEDS[name][1]})" for name in names)


def _grant(names: list[str]) -> str:
    if os.geteuid() == 0:  # a unit or a container took root's capabilities away
        return f"add {' '.join(names)} to CapabilityBoundingSet= of the unit, or to what the container may"
    return f"run as root, or add {' '.join(names)} to AmbientCapabilities= of the unit"


def explain_perf(number: int) -> tuple[str, str]:
    """What to say where perf_event_open() of a CPU failed with errno ``number``: what is wrong, and what to do. Without
    CAP_PERFMON it is EACCES (kernel/events/core.c: perf_allow_cpu), but where kernel.perf_event_paranoid is below 1."""
    what = os.strerror(number)
    if number in (errno.EPERM, errno.EACCES):
        if "CAP_PERFMON" in lacking():
            return "CAP_PERFMON is missing (needed to open perf events of a CPU)", _grant(["CAP_PERFMON"])
        level = _strict_level()
        if level and not _is_admin():
            return f"kernel.perf_event_paranoid is {level}, at which this kernel wants CAP_SYS_ADMIN", _LESS_STRICT
        return what, forbidden_by("perf_event_open")
    if number == errno.ENOSYS:
        if status("Seccomp") == SECCOMP_FILTER:
            return what, forbidden_by("perf_event_open")
        return what, "this kernel was built without it: CONFIG_PERF_EVENTS is needed"
    return what, "raise LimitNOFILE= of the unit, or ulimit -n" if number == errno.EMFILE else ""


def only_admin_has_perf() -> str:
    """What to say where root may open perf events and the service may not; empty where that is not so."""
    level = _strict_level()
    if not level or not _is_admin():
        return ""
    return (
        f"kernel.perf_event_paranoid is {level}: root may open perf events, and netobs.service may not, as it has no "
        f"CAP_SYS_ADMIN; {_LESS_STRICT}"
    )


def _strict_level() -> int:
    """kernel.perf_event_paranoid where it is higher than the kernel's own sources know, else 0."""
    level = int(host.read_if_there(str(PARANOID)) or 0)
    return level if level > MAINLINE_PARANOID else 0


def _is_admin() -> bool:
    return bool(_held() & 1 << _SYS_ADMIN)


def forbidden_by(call: str = "bpf") -> str:
    """Why a process with the capabilities may still not make the system call ``call``, and what to do."""
    if host.read_if_there("/proc/self/uid_map").split() not in (_FIRST_USER_NAMESPACE, []):
        return "capabilities of a user namespace do not count: run it outside (PrivateUsers= of the unit, a container)"
    if status("Seccomp") == SECCOMP_FILTER:
        return (
            f"a seccomp filter forbids {call}(): add it to SystemCallFilter= of the unit, or to the container's profile"
        )
    return "a security module forbids it: look for a denial in the kernel's and the audit log"


def status(key: str) -> str:
    """A line of /proc/self/status, "" if there is none."""
    for line in host.read_if_there("/proc/self/status").splitlines():
        name, _, value = line.partition(":")
        if name == key:
            return value.strip()
    return ""
