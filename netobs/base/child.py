"""Parts of netobs in processes of their own: starts them, and drops rights that they do not need."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
from pathlib import Path

from netobs.base import capabilities
from netobs.base.libc import LIBC

_START = "import sys; sys.path[:] = sys.argv.pop(1).split(':'); from {module} import main; main()"
_PR_SET_PDEATHSIG, _PR_SET_NAME, _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 1, 15, 47, 4  # linux/prctl.h
NOBODY = 65534


def command(module: str, *arguments: str) -> list[str]:
    """The command that runs ``main()`` of ``module`` with ``arguments``: with this interpreter and this process's
    module path, and nothing else of Python's environment."""
    return [sys.executable, "-I", "-c", _START.format(module=module), ":".join(sys.path), *arguments]


def set_name(name: str) -> None:
    """Sets the name of this process in ps and top (prctl(2), PR_SET_NAME): 15 octets at most."""
    LIBC.prctl(_PR_SET_NAME, name.encode(), 0, 0, 0)


def end_with_parent(signum: int = signal.SIGKILL) -> None:
    """Makes the kernel send ``signum`` when the thread that started this process ends (prctl(2), PR_SET_PDEATHSIG); 0
    cancels that."""
    parent = os.getppid()
    LIBC.prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(signum), 0, 0, 0)
    if signum and os.getppid() != parent:  # it ended in between
        os.kill(os.getpid(), signum)


def keep_capabilities_to_itself() -> None:
    """Programs that this process executes later get no capabilities, unless it runs as root (capabilities(7),
    ambient)."""
    LIBC.prctl(_PR_CAP_AMBIENT, ctypes.c_ulong(_PR_CAP_AMBIENT_CLEAR_ALL), 0, 0, 0)


def give_up_privileges() -> None:
    """Drops all capabilities of this process. Root becomes the user nobody, who owns no file, and may not be able to
    read modules that are imported later.

    :raises PermissionError: the kernel refused.
    """
    if os.geteuid() == 0:
        with contextlib.suppress(PermissionError):  # a root without these rights: its capabilities go nevertheless
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
    capabilities.give_up()  # its result is looked at below
    status = Path("/proc/self/status").read_bytes()
    if any(int(line.split()[1], 16) for line in status.split(b"\n") if line.startswith((b"CapEff:", b"CapPrm:"))):
        raise PermissionError("the process cannot give up its capabilities")
