"""Where the traffic goes: two network namespaces without a name that only this process holds, and a veth pair.

The process also has a /run of its own. So the sockets of its daemon are apart from those of a daemon of the host, and
they go with the process, too.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from netobs.base.errors import NetobsError
from netobs.base.libc import LIBC, checked
from netobs.kernel import net_namespace
from netobs.selftest import links
from netobs.selftest.links import End

NEAR = End("netobs0", "02:6e:6f:62:73:01", "192.0.2.1/24", "2001:db8::1/64")
"""The end that is measured."""
FAR = End("netobs1", "02:6e:6f:62:73:02", "192.0.2.2/24", "2001:db8::2/64")

_CLONE_NEWNS = 0x20000  # linux/sched.h
_MS_NOSUID, _MS_NODEV, _MS_REC, _MS_PRIVATE = 2, 4, 1 << 14, 1 << 18  # linux/mount.h
_SETTINGS = {
    # An interface sends nothing by itself, and TCP headers have no options but the MSS in a SYN.
    "ipv6/conf/default/accept_ra": 0,
    "ipv6/conf/default/addr_gen_mode": 1,
    "ipv6/conf/default/disable_ipv6": 0,
    "ipv6/conf/all/disable_ipv6": 0,
    "ipv4/tcp_ecn": 0,
    "ipv4/tcp_sack": 0,
    "ipv4/tcp_timestamps": 0,
    "ipv4/tcp_window_scaling": 0,
    "ipv4/icmp_echo_ignore_all": 0,
    "ipv4/conf/all/rp_filter": 0,
    "ipv4/conf/default/rp_filter": 0,
}


class Site:
    """``open`` -> this thread is in the near namespace -> ``far`` for a step into the other one. All of it goes with
    the process, however that ends."""

    def __init__(self) -> None:
        self.has_ipv6 = Path("/proc/sys/net/ipv6").is_dir()
        """Whether the kernel has it: ipv6.disable=1 leaves it out."""
        self.index = 0
        """Of the interface that is measured."""
        self._far_fd = -1

    def open(self) -> None:
        """Makes both namespaces, and joins them.

        :raises NetobsError: a right or a feature is missing.
        """
        try:
            self._set_up()
        except OSError as error:
            raise NetobsError(f"cannot make namespaces for the test: {error.strerror}", _hint(error)) from error

    def _set_up(self) -> None:
        _leave_run()
        net_namespace.enter_new()
        self._far_fd = net_namespace.own()
        self._prepare()
        net_namespace.enter_new()
        self._prepare()
        links.add_pair(NEAR, FAR, self._far_fd)
        self.index = self._address(NEAR, FAR)
        with self.far():
            self._address(FAR, NEAR)

    def _prepare(self) -> None:
        for name, value in _SETTINGS.items():
            if self.has_ipv6 or not name.startswith("ipv6/"):
                path = f"/proc/sys/net/{name}"
                try:
                    Path(path).write_text(f"{value}\n", encoding="ascii")
                except OSError as error:
                    raise OSError(error.errno, f"{path}: {error.strerror}") from error
        links.set_up()

    def _address(self, end: End, other: End) -> int:
        index = socket.if_nametoindex(end.name)
        links.set_up(index)
        links.add_address(index, end.ipv4, other.ipv4, other.mac)
        if self.has_ipv6:
            links.add_address(index, end.ipv6, other.ipv6, other.mac)
        return index

    @contextlib.contextmanager
    def far(self) -> Iterator[None]:
        """This thread is in the far namespace meanwhile; sockets that it opens there stay there."""
        with net_namespace.inside(self._far_fd):
            yield

    def close(self) -> None:
        """Gives up the far namespace; the near one goes with the process."""
        if self._far_fd >= 0:
            os.close(self._far_fd)
            self._far_fd = -1


def _leave_run() -> None:
    """Puts an empty file system over /run, in a mount namespace of this process's own."""
    checked(LIBC.unshare(_CLONE_NEWNS))
    checked(LIBC.mount(b"none", b"/", None, _MS_REC | _MS_PRIVATE, None))
    checked(LIBC.mount(b"netobs-selftest", b"/run", b"tmpfs", _MS_NOSUID | _MS_NODEV, b"mode=755,size=1m"))


def _hint(error: OSError) -> str:
    if error.errno in (errno.EPERM, errno.EACCES):
        return "run it as root (CAP_SYS_ADMIN, CAP_NET_ADMIN), outside containers that forbid unshare(2) or mount(2)"
    if error.errno == errno.EROFS:
        return "run it where /proc/sys can be written"
    if error.errno == errno.EOPNOTSUPP:
        return "the kernel needs veth (CONFIG_VETH): modprobe veth says more"
    if error.errno in (errno.ENOSPC, errno.EUSERS):
        return "raise /proc/sys/user/max_net_namespaces"
    return "see netobs(8)"
