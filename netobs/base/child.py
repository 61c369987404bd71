"""Parts of netobs in processes of their own: how they are started, and how they lose what they do not need."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import struct
import sys
from pathlib import Path

_START = "import sys; sys.path[:] = sys.argv.pop(1).split(':'); from {module} import main; main()"
_LIBC = ctypes.CDLL(None, use_errno=True)
_PR_SET_PDEATHSIG, _PR_SET_NAME, _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 1, 15, 47, 4  # linux/prctl.h
_CAPABILITY_VERSION_3 = 0x20080522  # linux/capability.h
NOBODY = 65534


def command(module: str, *arguments: str) -> list[str]:
    """What to execute to run ``main()`` of ``module`` with ``arguments``: by this interpreter, with modules from where
    this process has its own, and with nothing else of Python's environment."""
    return [sys.executable, "-I", "-c", _START.format(module=module), ":".join(sys.path), *arguments]


def set_name(name: str) -> None:
    """What ps and top call this process (prctl(2), PR_SET_NAME): 15 octets at most."""
    _LIBC.prctl(_PR_SET_NAME, name.encode(), 0, 0, 0)


def end_with_parent(signum: int = signal.SIGKILL) -> None:
    """Lets the kernel send ``signum`` when the thread that started this process ends (prctl(2), PR_SET_PDEATHSIG); 0
    takes that back."""
    parent = os.getppid()
    _LIBC.prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(signum), 0, 0, 0)
    if signum and os.getppid() != parent:  # it ended in between
        os.kill(os.getpid(), signum)


def keep_capabilities_to_itself() -> None:
    """What this process executes from now on has no capabilities, unless it runs as root (capabilities(7), ambient)."""
    _LIBC.prctl(_PR_CAP_AMBIENT, ctypes.c_ulong(_PR_CAP_AMBIENT_CLEAR_ALL), 0, 0, 0)


def give_up_privileges() -> None:
    """This process has no capability from here on. Root becomes nobody, who owns no file, and may not be able to read
    what is still to be imported.

    :raises PermissionError: that was not possible.
    """
    if os.geteuid() == 0:
        with contextlib.suppress(PermissionError):  # a root without these rights: its capabilities go nevertheless
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
    _LIBC.capset(struct.pack("=Ii", _CAPABILITY_VERSION_3, 0), bytes(24))  # its result is looked at below
    status = Path("/proc/self/status").read_bytes()
    if any(int(line.split()[1], 16) for line in status.split(b"\n") if line.startswith((b"CapEff:", b"CapPrm:"))):
        raise PermissionError("the process cannot give up its capabilities")
