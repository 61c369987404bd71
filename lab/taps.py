"""Tap interfaces by the hundred, as on a hypervisor: they exist without a process, and nobody is behind them; or one
process has them, and sends."""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import subprocess
from collections.abc import Iterable, Iterator, Mapping

from lab.namespaces import in_namespace

TUNSETIFF, TUNSETPERSIST, TUNSETIFINDEX, IFF_TAP, IFF_NO_PI = 0x400454CA, 0x400454CB, 0x400454DA, 2, 0x1000
"""linux/if_tun.h"""


def make_taps(ns: str, names: Iterable[str]) -> None:
    """Makes one of each name in ``ns``, down: it is there until somebody deletes it, or the namespace."""
    _for_each(ns, names, 1)


def delete_taps(ns: str, names: Iterable[str]) -> None:
    """Deletes those of ``make_taps``."""
    _for_each(ns, names, 0)


@contextlib.contextmanager
def running_taps(ns: str, taps: Mapping[int, str]) -> Iterator[dict[int, int]]:
    """One tap of each index and name in ``ns``, up; by index, the descriptor that takes the frames which arrive at it.
    All are gone afterwards."""
    with contextlib.ExitStack() as opened, in_namespace(ns):
        fds = {}
        for index, name in taps.items():
            fd = fds[index] = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
            opened.callback(os.close, fd)
            fcntl.ioctl(fd, TUNSETIFINDEX, struct.pack("=I", index))
            fcntl.ioctl(fd, TUNSETIFF, _request(name))
        lines = "".join(f"link set {name} up\n" for name in taps.values())
        subprocess.run(["ip", "-batch", "-"], input=lines, text=True, check=True)
        yield fds


def _request(name: str) -> bytes:
    return struct.pack("16sH22x", name.encode(), IFF_TAP | IFF_NO_PI)


def _for_each(ns: str, names: Iterable[str], persistent: int) -> None:
    with in_namespace(ns):
        for name in names:
            fd = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.ioctl(fd, TUNSETIFF, _request(name))
                fcntl.ioctl(fd, TUNSETPERSIST, persistent)
            finally:
                os.close(fd)
