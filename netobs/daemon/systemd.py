"""Reports to the service manager (sd_notify(3)); systemd listens for units of Type=notify."""

from __future__ import annotations

import errno
import logging
import os
import socket
import struct
from collections import deque
from collections.abc import Mapping
from typing import Callable

from netobs.base import clock
from netobs.base.loop import POLL_NS, EventLoop

log = logging.getLogger("netobs")

NS_PER_US = 1_000
LONGER_NS = 20_000_000_000
MISSED_EVICTIONS = 3
"""The number of evictions in a row that may fail or be late before the watchdog ends the daemon."""


class ServiceManager:
    """``environment``: NOTIFY_SOCKET, and WATCHDOG_USEC with WATCHDOG_PID (sd_watchdog_enabled(3)).

    Nothing here waits or fails: measuring goes on even if the service manager does not listen. The messages go in their
    order; what the socket does not take at once follows from ``loop``.
    """

    def __init__(self, environment: Mapping[str, str], loop: EventLoop) -> None:
        address = environment.get("NOTIFY_SOCKET", "")
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        watched = environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        usec = environment.get("WATCHDOG_USEC", "0") if watched else "0"
        self._watchdog_ns = int(usec) * NS_PER_US if usec.isascii() and usec.isdigit() else 0
        self._least_watchdog_ns = self._watchdog_ns
        self._socket: socket.socket | None = None
        self._loop = loop
        self._unsent: deque[tuple[str, int]] = deque()
        self._is_scheduled = False

    @property
    def listens(self) -> bool:
        """Whether there is a service manager; without one, callers can skip the reports."""
        return bool(self._address)

    def ready(self) -> None:
        """Interfaces are attached and the first Templates are sent; after ``reloading``: the new file is in use."""
        self.send("READY=1")  # also while one waits: RELOADING=1 may be behind that

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

    def send(self, message: str, fd: int = -1) -> None:
        """Sends ``message`` with ``fd``, if it is one, and closes that."""
        self._unsent.append((message, fd))
        if not self._is_scheduled:
            self._go_on(0)

    def settle(self, within_ns: int, sleep_ns: Callable[[int], object] = clock.sleep_ns) -> None:
        """Waits until the service manager has everything, at most ``within_ns``: for the end of the process."""
        end_ns = clock.monotonic_ns() + within_ns
        while not self._flush() and clock.monotonic_ns() < end_ns:
            sleep_ns(POLL_NS // 20)

    def close(self) -> None:
        """Closes the socket; no reports follow."""
        self._address = ""
        self._flush()
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _tell(self, message: str) -> None:
        """While others wait, a status would be old when it is read, and one sign of life is enough."""
        if (self._unsent and message.startswith("STATUS=")) or (message, -1) in self._unsent:
            return
        self.send(message)

    def _go_on(self, _now_ns: int) -> None:
        self._is_scheduled = not self._flush()
        if self._is_scheduled:
            self._loop.call_at(clock.monotonic_ns() + POLL_NS, self._go_on)

    def _flush(self) -> bool:
        """Whether everything was sent."""
        while self._unsent:
            message, fd = self._unsent[0]
            try:
                self._send_now(message, fd)
            except OSError as error:
                # The service manager has not yet taken the earlier messages, or descriptors (unix(7)).
                if error.errno in (errno.EAGAIN, errno.ETOOMANYREFS):
                    return False
                log.debug("systemd does not take %r: %s", message, error.strerror)
            self._unsent.popleft()
            if fd >= 0:
                os.close(fd)
        return True

    def _send_now(self, message: str, fd: int) -> None:
        if not self._address:
            return
        if self._socket is None:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        control = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("=i", fd))] if fd >= 0 else []
        self._socket.sendmsg([message.encode()], control, 0, self._address)
