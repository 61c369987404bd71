"""The network namespaces that have a name, as ``ip netns`` gives them, and a step into one of them."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator

from netobs.config.namespaces import NamespaceSelector, is_namespace_name
from netobs.kernel.net_namespace import CLONE_NEWNET, enter

FOLDER = "/run/netns"
NS_GET_NSTYPE = 0xB703  # linux/nsfs.h


class NamedNamespaces:
    """The namespaces in ``folder`` whose names ``selector`` matches. Nothing else there is opened."""

    def __init__(self, selector: NamespaceSelector, folder: str = FOLDER) -> None:
        self.folder = folder
        self._selector = selector
        self._home = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)

    def names(self, most: int) -> list[tuple[str, int]]:
        """(name, inode) of each, at most so many."""
        found: list[tuple[str, int]] = []
        with contextlib.suppress(FileNotFoundError):  # the first "ip netns add" makes the folder
            for name in sorted(filter(self._selector.matches, os.listdir(self.folder)))[:most]:
                with contextlib.suppress(OSError), self.opened(name) as fd:  # not a namespace yet, or gone
                    found.append((name, os.fstat(fd).st_ino))
        return found

    @contextlib.contextmanager
    def opened(self, name: str) -> Iterator[int]:
        """A descriptor of the namespace ``name``.

        :raises OSError: EACCES: the configuration does not allow it; ENOENT; EAGAIN: the file is no network namespace,
            or not yet ("ip netns add" makes the file first).
        """
        if not is_namespace_name(name) or not self._selector.matches(name):
            raise OSError(errno.EACCES, "no pattern of the helper's configuration matches this name")
        folder = os.open(self.folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
        except PermissionError:  # the mode of the file before it is a namespace: nobody may read it
            raise OSError(errno.EAGAIN, "not a network namespace") from None
        finally:
            os.close(folder)
        try:
            if _kind(fd) != CLONE_NEWNET:
                raise OSError(errno.EAGAIN, "not a network namespace")
            yield fd
        finally:
            os.close(fd)

    @contextlib.contextmanager
    def inside(self, fd: int) -> Iterator[None]:
        """This thread is in the namespace ``fd`` meanwhile.

        :raises OSError: it cannot be entered.
        """
        enter(fd)
        try:
            yield
        finally:
            try:
                enter(self._home)
            except OSError as error:  # whatever came next would be done in the wrong place
                raise SystemExit(f"cannot return from a network namespace: {error.strerror}") from error

    def close(self) -> None:
        """Closes the descriptor of this process's own namespace."""
        os.close(self._home)


def _kind(fd: int) -> int:
    """The type of the namespace ``fd``; 0 if it is none."""
    try:
        return fcntl.ioctl(fd, NS_GET_NSTYPE)
    except OSError:
        return 0
