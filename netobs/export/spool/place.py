"""Checks the place of a spool, because netobs, often as root, writes wherever the configuration says.

It follows no symbolic link below that folder. It refuses a place that another user could exchange, or has made, with a
sentence that says what to do.
"""

from __future__ import annotations

import errno
import os
import pwd
import stat
from pathlib import Path

from netobs.base.errors import ExportError

OPEN_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_NO_FILES = ("proc", "sysfs", "cgroup", "cgroup2", "securityfs", "debugfs", "tracefs", "bpf", "configfs", "devpts",
             "pstore", "efivarfs", "mqueue", "binfmt_misc", "fusectl", "selinuxfs", "autofs")  # fmt: skip


class Unusable(OSError):
    """A place that can never be a spool: a mistake in the configuration."""


def never(error: Unusable, name: str) -> ExportError:
    """The error if ``error`` keeps the daemon from starting; ``name``: of the collector."""
    return ExportError(f"{name}: spool {error.filename}: {error.strerror}", "set spool to a folder on a disk")


def trouble(error: OSError, directory: Path) -> str:
    """The message for any other error."""
    where = error.filename or directory
    return f"spool {where}: {error.strerror}; flows wait in memory, and the spool is tried again each minute"


def folder_of(spool: str, collector: str) -> Path:
    """The folder for the files of a collector: different names have different folders."""
    name = "".join(char if char.isalnum() or char in "-_.:@" else f"%{ord(char):X}" for char in collector)
    return Path(spool, f"%2E{name[1:]}" if name.startswith(".") else name)


def check(directory: Path) -> None:
    """Checks that this user could make files in ``directory``, or the folder itself if it is missing. Changes nothing.

    Raises the OSError of ``Folder.open``, which names the place; Unusable if no retry can help.
    """
    root = directory.parent
    if directory.is_symlink():
        raise refused(directory, "is a symbolic link, which is not followed; make it a folder")
    if directory.is_dir():
        check_folder(directory, os.stat(directory), (os.geteuid(),))
    there = next(path for path in (directory, *directory.parents) if os.path.lexists(path))
    if not there.is_dir():
        raise Unusable(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(there))
    _check_kind(there)
    if there not in (directory, root, root.parent):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(root.parent))
    if there == root.parent:
        _check_above(root, Path(os.path.realpath(there), root.name))
    else:
        os.close(open_root(root))
    if not os.access(there, os.W_OK | os.X_OK):
        code = errno.EROFS if os.statvfs(there).f_flag & os.ST_RDONLY else errno.EACCES
        raise OSError(code, os.strerror(code), str(there))


def open_root(root: Path) -> int:
    """A descriptor of the folder that the configuration names. Raises OSError if another user could exchange it."""
    if root.is_symlink() and os.lstat(root).st_uid not in (os.geteuid(), 0):
        raise refused(root, "is a symbolic link of another user, which is not followed")
    fd = os.open(root, OPEN_FOLDER)
    try:
        state, real = os.fstat(fd), Path(os.path.realpath(root))
        check_folder(root, state, (os.geteuid(), 0))
        _check_above(root, real)
        if not os.path.samestat(os.stat(real), state):
            raise refused(root, "was exchanged by somebody")
    except BaseException:
        os.close(fd)
        raise
    return fd


def check_folder(path: Path, state: os.stat_result, owners: tuple[int, ...]) -> None:
    """Raises OSError unless one of ``owners`` alone may write to the folder at ``path``."""
    if state.st_uid not in owners:
        owner, me = user(state.st_uid), user(os.geteuid())
        hint = f"run `chown -R {me}: {path}`" if os.geteuid() else f"run netobs as {owner}, as its service does"
        raise refused(path, f"belongs to the user {owner}, and this is {me}: {hint}, or choose another spool")
    if state.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not state.st_mode & stat.S_ISVTX:
        raise refused(path, f"may be written to by other users: run `chmod go-w {path}`")


def user(uid: int) -> str:
    """The name of a user, or the number."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def refused(path: Path, why: str) -> OSError:
    """The error for a place or file that is not safe to use."""
    return OSError(errno.EPERM, why, str(path))


def _check_above(root: Path, real: Path) -> None:
    """Raises OSError if another user could exchange a folder on the way to ``real``."""
    for above in real.parents:
        its = os.stat(above)
        if its.st_uid not in (os.geteuid(), 0) or (its.st_mode & stat.S_IWOTH and not its.st_mode & stat.S_ISVTX):
            raise refused(root, f"lies in {above}, where another user could exchange it; choose another spool")


def _check_kind(place: Path) -> None:
    """Raises Unusable if the file system at ``place`` accepts no files of ours, such as /proc."""
    device = os.stat(place).st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    try:
        mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return
    for line in mounts:
        left, _, right = line.partition(" - ")
        kind = right.partition(" ")[0]
        if left.split(" ")[2] == wanted and kind in _NO_FILES:
            raise Unusable(errno.EPERM, f"is in a file system that takes no files ({kind})", str(place))
