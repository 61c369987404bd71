"""Tap interfaces by the hundred, as on a hypervisor: they exist without a process, and nobody is behind them."""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import Iterable

from lab.namespaces import in_namespace

TUNSETIFF, TUNSETPERSIST, IFF_TAP, IFF_NO_PI = 0x400454CA, 0x400454CB, 2, 0x1000  # linux/if_tun.h


def make_taps(ns: str, names: Iterable[str]) -> None:
    """Makes one of each name in ``ns``, down: it is there until somebody deletes it, or the namespace."""
    _for_each(ns, names, 1)


def delete_taps(ns: str, names: Iterable[str]) -> None:
    """Deletes those of ``make_taps``."""
    _for_each(ns, names, 0)


def _for_each(ns: str, names: Iterable[str], persistent: int) -> None:
    with in_namespace(ns):
        for name in names:
            fd = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TAP | IFF_NO_PI))
                fcntl.ioctl(fd, TUNSETPERSIST, persistent)
            finally:
                os.close(fd)
