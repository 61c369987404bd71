"""Reports to the service manager (sd_notify(3)); systemd listens for units of Type=notify."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from collections.abc import Mapping

NS_PER_US = 1_000
LONGER_NS = 20_000_000_000
MISSED_EVICTIONS = 3
"""The number of evictions in a row that may fail or be late before the watchdog ends the daemon."""


class ServiceManager:
    """``environment``: NOTIFY_SOCKET, and WATCHDOG_USEC with WATCHDOG_PID (sd_watchdog_enabled(3)).

    Nothing here waits or fails: measuring goes on even if the service manager does not listen.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        address = environment.get("NOTIFY_SOCKET", "")
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        watched = environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        usec = environment.get("WATCHDOG_USEC", "0") if watched else "0"
        self._watchdog_ns = int(usec) * NS_PER_US if usec.isascii() and usec.isdigit() else 0
        self._least_watchdog_ns = self._watchdog_ns
        self._socket: socket.socket | None = None

    @property
    def listens(self) -> bool:
        """Whether there is a service manager; without one, callers can skip the reports."""
        return bool(self._address)

    def ready(self) -> None:
        """Interfaces are attached and the first Templates are sent; after ``reloading``: the new file is in use."""
        self._tell("READY=1")

    def status(self, text: str) -> None:
        """A line for ``systemctl status``."""
        self._tell(f"STATUS={text}")

    def alive(self) -> None:
        """An eviction has succeeded."""
        if self._watchdog_ns:
            self._tell("WATCHDOG=1")

    def expect_evictions(self, interval_ns: int) -> None:
        """``alive`` comes every ``interval_ns``; a watchdog with a shorter time gets a longer one."""
        if not self._least_watchdog_ns:
            return
        watchdog_ns = max(self._least_watchdog_ns, MISSED_EVICTIONS * interval_ns)
        if watchdog_ns != self._watchdog_ns:
            self._watchdog_ns = watchdog_ns
            self._tell(f"WATCHDOG_USEC={watchdog_ns // NS_PER_US}")

    def reloading(self, now_ns: int) -> None:
        """The daemon reads the configuration again; ``ready`` follows. ``now_ns``: CLOCK_MONOTONIC."""
        self._tell(f"RELOADING=1\nMONOTONIC_USEC={now_ns // NS_PER_US}")

    def takes_longer(self) -> None:
        """The start or the stop goes on: the service manager may wait ``LONGER_NS`` from now on, if its own limit is
        nearer. Call it more often than that."""
        self._tell(f"EXTEND_TIMEOUT_USEC={LONGER_NS // NS_PER_US}")

    def stopping(self) -> None:
        """The daemon is stopping."""
        self._tell("STOPPING=1")

    def pass_fd(self, message: str, fd: int = -1) -> bool:
        """Sends ``message`` with ``fd``, if it is one. False: the service manager has not read enough of the earlier
        messages; call again later.

        :raises OSError: it cannot be sent, for any other reason.
        """
        if not self._address:
            return True
        control = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("=i", fd))] if fd >= 0 else []
        try:
            self._open().sendmsg([message.encode()], control, 0, self._address)
        except BlockingIOError:
            return False
        return True

    def close(self) -> None:
        """Closes the socket; no reports follow."""
        self._address = ""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _tell(self, message: str) -> None:
        if self._address:
            with contextlib.suppress(OSError):
                self._open().sendto(message.encode(), self._address)

    def _open(self) -> socket.socket:
        if self._socket is None:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        return self._socket
