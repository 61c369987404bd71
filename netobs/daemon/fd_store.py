"""systemd's store of file descriptors (sd_pid_notify_with_fds(3)) keeps them from one process of a unit to the next.

The unit says how many in FileDescriptorStoreMax=, and tells this process in the variable FDSTORE, as systemd does by
itself from version 254 on.
"""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Mapping
from typing import Callable

from netobs.base import clock
from netobs.base.keeper import HeldDescriptors
from netobs.daemon.systemd import ServiceManager

log = logging.getLogger("netobs")

FIRST_FD = 3  # sd_listen_fds(3)


def inherited(environment: Mapping[str, str], first_fd: int = FIRST_FD) -> dict[str, int]:
    """What systemd passes to this process, by name: LISTEN_FDS and LISTEN_FDNAMES (sd_listen_fds_with_names(3)). The
    descriptors are not inherited any further. Of several with one name, the first, which is the newest, counts."""
    count = environment.get("LISTEN_FDS", "")
    if environment.get("LISTEN_PID") != str(os.getpid()) or not count.isdecimal():
        return {}
    fds = range(first_fd, first_fd + int(count))
    found: dict[str, int] = {}
    for name, fd in zip(environment.get("LISTEN_FDNAMES", "").split(":"), fds):
        os.set_inheritable(fd, False)
        if name in found:
            os.close(fd)
        else:
            found[name] = fd
    return found


def store_size(environment: Mapping[str, str]) -> int:
    """How many descriptors the service manager keeps; 0 if none."""
    text = environment.get("FDSTORE", "")
    return int(text) if text.isdecimal() and environment.get("NOTIFY_SOCKET") else 0


class FdStore(HeldDescriptors):
    """A ``Keeper``."""

    keeps = True

    def __init__(self, service: ServiceManager, former: Mapping[str, int], size: int) -> None:
        """``former``: as ``inherited`` gives it; owned by this object from now on. ``size``: how many may be kept."""
        self._service, self._size = service, size
        super().__init__(former)
        self._kept = set(former)
        self._said_full = False

    def memory(self, name: str) -> int:
        fd = os.memfd_create(f"netobs-{name}", os.MFD_CLOEXEC)
        self.keep(name, fd)
        self._own[name] = fd
        return fd

    def keep(self, name: str, fd: int) -> None:
        self.drop(name)
        if len(self._kept) >= self._size:
            self._say_full()
            return
        self._kept.add(name)
        self._service.send(f"FDSTORE=1\nFDPOLL=0\nFDNAME={name}", fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, FIRST_FD))

    def drop(self, name: str) -> None:
        self._close_held(name)
        if name in self._kept:
            self._kept.discard(name)
            self._service.send(f"FDSTOREREMOVE=1\nFDNAME={name}")

    def forget(self) -> None:
        """Keeps nothing any more."""
        for name in sorted(self._kept):
            self.drop(name)

    def _say_full(self) -> None:
        if not self._said_full:
            self._said_full = True
            log.warning(
                "systemd keeps %d descriptors of this service, and there are more: a restart will miss packets on some "
                "interfaces; raise FileDescriptorStoreMax= and the variable FDSTORE of the unit",
                self._size,
            )

    def settle(self, within_ns: int, sleep_ns: Callable[[int], object] = clock.sleep_ns) -> None:
        """As ``ServiceManager.settle``."""
        self._service.settle(within_ns, sleep_ns)
