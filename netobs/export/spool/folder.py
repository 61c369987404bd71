"""The folder of a spool, except for the Messages in it: its files by name, its lock, its cursor."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import struct
import zlib
from pathlib import Path
from typing import NamedTuple

from netobs.base.errors import ExportError
from netobs.export.spool.place import OPEN_FOLDER, check_folder, open_root, refused, user

SUFFIX, INDEX_SUFFIX = ".ipfix", ".index"

_CURSOR = struct.Struct("<QQQ")  # number of the segment, number of the Message, where that begins in the data file
_CHECKED_CURSOR = struct.Struct("<QQQI")  # and the CRC of these three
_OLD_CURSOR = struct.Struct("<QQ")  # as earlier versions wrote it
_FOLDER_MODE = 0o750
_FILE_MODE = 0o640
_OPEN_FILE = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Cursor(NamedTuple):
    """The next Message to send: ``message`` of segment ``number``. It starts at ``offset``; -1: unknown.

    ``sound``: the stored cursor passed its checks.
    """

    number: int = 0
    message: int = 0
    offset: int = -1
    sound: bool = True


def used_bytes(directory: Path) -> int:
    """Disk space of the Messages in ``directory``, including files put aside; 0 if there is no such folder."""
    try:
        with os.scandir(directory) as found:
            return sum(
                each.stat(follow_symlinks=False).st_size
                for each in found
                if each.name.partition(".")[0].isdecimal() and each.is_file(follow_symlinks=False)
            )
    except OSError:
        return 0


class Folder:
    """``directory``, held by a descriptor from ``open`` to ``close``, so that nobody can exchange it.

    The folder and all files in it must belong to the user of this process, and only this user may write there; the
    parent folder must belong to that user or root. Files are regular and have one name. All paths are relative to the
    descriptor.
    """

    def __init__(self, directory: Path, name: str) -> None:
        """``name`` of the collector, for errors."""
        self.directory = directory
        self._name = name
        self._fd = self._lock = self._cursor = -1
        self._changed_ns = 0

    @property
    def is_open(self) -> bool:
        return self._cursor >= 0

    def open(self) -> Cursor:
        """Make the folder if it is missing, and take it. Raises OSError, or ExportError if another process has it."""
        root, name = self.directory.parent, self.directory.name
        # Also the parent folder, but no more: a wrong path must not be created.
        with contextlib.suppress(FileExistsError):
            root.mkdir(_FOLDER_MODE)
        root_fd = open_root(root)
        try:
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, _FOLDER_MODE, dir_fd=root_fd)
            self._fd = os.open(name, OPEN_FOLDER | os.O_NOFOLLOW, dir_fd=root_fd)
        except OSError as error:
            raise _named(error, self.directory) from error
        finally:
            os.close(root_fd)
        try:
            check_folder(self.directory, os.fstat(self._fd), (os.geteuid(),))
            self._lock = self.open_file("lock", os.O_CREAT)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._cursor = self.open_file("cursor", os.O_CREAT)
            cursor = _read_cursor(self._cursor)
            if cursor is None:
                cursor = Cursor(sound=False)  # an older folder should have one
                self.set_cursor(0, 0, 0)
        except BlockingIOError:
            self.close()
            raise ExportError(
                f"{self._name}: spool {self.directory} is used by another process",
                "stop that one, or give this one another folder",
                may_pass=True,
            ) from None
        except OSError:
            self.close()
            raise
        self._settle()
        return cursor

    def is_there(self) -> bool:
        """Whether the path still points to this folder."""
        try:
            there, held = os.stat(self.directory, follow_symlinks=False), os.fstat(self._fd)
        except OSError:
            return False
        return (there.st_dev, there.st_ino) == (held.st_dev, held.st_ino)

    def has_changed(self) -> bool:
        """Whether somebody else has made, renamed or removed a file since the last call."""
        changed = os.fstat(self._fd).st_mtime_ns != self._changed_ns
        self._settle()
        return changed

    def names(self) -> list[str]:
        """All that is in it. Raises OSError."""
        return os.listdir(self._fd)

    def path(self, name: str) -> Path:
        """The path of ``name``, for messages."""
        return self.directory / name

    def open_file(self, name: str, flags: int = 0) -> int:
        """A descriptor to read and write the file ``name``. Raises OSError with the whole path."""
        try:
            fd = os.open(name, _OPEN_FILE | flags, _FILE_MODE, dir_fd=self._fd)
        except OSError as error:
            raise _named(error, self.path(name)) from error
        state, why = os.fstat(fd), ""
        if not stat.S_ISREG(state.st_mode):
            why = "is not a regular file"
        elif state.st_uid != os.geteuid():
            why = f"belongs to the user {user(state.st_uid)}"
        elif state.st_nlink > 1:
            why = "has a second name elsewhere (a hard link)"
        if why:
            os.close(fd)
            raise refused(self.path(name), why)
        if flags & os.O_CREAT:
            self._settle()
        return fd

    def size(self, name: str) -> int:
        """The length of a file in bytes; 0 if there is none."""
        try:
            return os.stat(name, dir_fd=self._fd, follow_symlinks=False).st_size
        except OSError:
            return 0

    def holds(self, name: str, fd: int) -> bool:
        """Whether the file ``name`` is there, and, unless ``fd`` is -1, the one that this descriptor leads to."""
        try:
            there = os.stat(name, dir_fd=self._fd, follow_symlinks=False)
        except OSError:
            return False
        return fd < 0 or there.st_ino == os.fstat(fd).st_ino

    def unlink(self, name: str) -> None:
        """Raises OSError; not if it is gone already."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=self._fd)
        self._settle()

    def rename(self, old: str, new: str) -> None:
        """Raises OSError."""
        os.rename(old, new, src_dir_fd=self._fd, dst_dir_fd=self._fd)
        self._settle()

    def set_cursor(self, number: int, index: int, offset: int) -> None:
        """Stores the next Message to send. It survives the process, but is not forced to the disk."""
        packed = _CURSOR.pack(number, index, offset)
        with contextlib.suppress(OSError):  # it overwrites a file in place; what fails here fails elsewhere too
            os.pwrite(self._cursor, packed + zlib.crc32(packed).to_bytes(4, "little"), 0)

    def close(self) -> None:
        """Give the folder back."""
        for fd in (self._cursor, self._lock, self._fd):
            if fd >= 0:
                os.close(fd)
        self._cursor = self._lock = self._fd = -1

    def _settle(self) -> None:
        self._changed_ns = os.fstat(self._fd).st_mtime_ns


def _read_cursor(fd: int) -> Cursor | None:
    """None if nothing is stored."""
    stored = os.pread(fd, _CHECKED_CURSOR.size + 1, 0)
    if not stored:
        return None
    if len(stored) == _OLD_CURSOR.size:
        return Cursor(*_OLD_CURSOR.unpack(stored))
    if len(stored) != _CHECKED_CURSOR.size:
        return Cursor(sound=False)
    number, index, offset, crc = _CHECKED_CURSOR.unpack(stored)
    return Cursor(number, index, offset, zlib.crc32(stored[: _CURSOR.size]) == crc)


def _named(error: OSError, path: Path) -> OSError:
    """``error`` with the whole path, and in words where those of the system mislead."""
    if error.errno == errno.ELOOP or (error.errno == errno.ENOTDIR and path.is_symlink()):
        return refused(path, "is a symbolic link, which is not followed")
    return OSError(error.errno, error.strerror, str(path))
