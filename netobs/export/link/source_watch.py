"""Notices that this host's source address has changed: DHCP, PPPoE, a failover, a changed route."""

from __future__ import annotations

import errno
import os
from typing import Callable

from netobs.base.clock import NS_PER_S
from netobs.base.loop import EventLoop, Timer

WATCH_NS = NS_PER_S
"""How often the address is checked, with four system calls."""
LOCAL_ERRORS = (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EADDRNOTAVAIL, errno.EINVAL, errno.ENETDOWN, errno.ENODEV)
"""Errors that a call returns at once if this host has no route, or no longer has the socket's address.

ip_route_output_key_hash_rcu, ip6_dst_lookup_tail. A connected socket keeps its address, so only a new one can send.
"""


class SourceWatch:
    """Calls ``changed(reason, now_ns)`` when ``choose`` returns another address than at ``start``.

    ``choose`` asks the kernel for the address that a new socket would send from; OSError means that there is none. IPv4
    refuses to send from an address that the host has lost. IPv6 sends, and no answer can come back: only this check
    notices it.

    The address at ``start`` comes from ``choose``, not from a socket: if several routes are equal, the kernel may
    choose for each socket separately, and that is not a change.
    """

    def __init__(self, loop: EventLoop, choose: Callable[[], str], changed: Callable[[str, int], None]) -> None:
        self._loop = loop
        self._choose = choose
        self._changed = changed
        self._chosen = ""
        self._timer: Timer | None = None

    def start(self, now_ns: int) -> None:
        """The socket is new."""
        self.stop()
        try:
            self._chosen = self._choose()
        except OSError:  # no descriptor left, or the path went just now: the first look tells
            self._chosen = ""
        self._timer = self._loop.call_at(now_ns + WATCH_NS, self._look)

    def stop(self) -> None:
        """There is no socket."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self, now_ns: int) -> None:
        self._timer = self._loop.call_at(now_ns + WATCH_NS, self._look)
        try:
            chosen = self._choose()
        except OSError as error:
            if error.errno in LOCAL_ERRORS:
                self._changed(os.strerror(error.errno), now_ns)
            return
        before, self._chosen = self._chosen, chosen
        if before and chosen != before:
            self._changed(f"this host sends from {chosen} now", now_ns)
