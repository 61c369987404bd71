"""The folder of a spool, but for the Messages in it: its place, its lock, its cursor, and what it takes of the disk."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import struct
from pathlib import Path

from netobs.errors import ExportError
from netobs.export.spool_segment import paths_aside, segment_paths

_CURSOR = struct.Struct("<QQ")  # number of the segment, number of the Message
_FOLDER_MODE = 0o750
_FILE_MODE = 0o640


def folder_of(spool: str, collector: str) -> Path:
    """Where the files of the collector named so are: names that differ have folders that differ."""
    name = "".join(char if char.isalnum() or char in "-_.:@" else f"%{ord(char):X}" for char in collector)
    return Path(spool, f"%2E{name[1:]}" if name.startswith(".") else name)


def used_bytes(directory: Path) -> int:
    """What the Messages in ``directory`` take of the disk, with what is aside; 0 if there is no such folder."""
    try:
        paths = [*segment_paths(directory), *paths_aside(directory)]
    except OSError:
        return 0
    return sum(file_bytes(path) + file_bytes(path.with_suffix(".index")) for path in paths)


def file_bytes(path: Path) -> int:
    """The length of a file; 0 if there is none."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def check(directory: Path) -> None:
    """Whether files could be made in ``directory``, or the folder itself if it is missing. Changes nothing.

    Raises OSError that names the place.
    """
    for path in (directory, directory.parent, directory.parent.parent):
        if path.is_dir():
            if not os.access(path, os.W_OK | os.X_OK):
                code = errno.EROFS if os.statvfs(path).f_flag & os.ST_RDONLY else errno.EACCES
                raise OSError(code, os.strerror(code), str(path))
            return
        if path.exists():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(directory.parent.parent))


class Folder:
    """``directory``, held by this process from ``open`` to ``close``."""

    def __init__(self, directory: Path, name: str) -> None:
        """``name`` of the collector, for errors."""
        self.directory = directory
        self._name = name
        self._lock = self._cursor = -1

    @property
    def is_open(self) -> bool:
        return self._cursor >= 0

    def open(self) -> tuple[int, int]:
        """Make the folder if it is missing, and take it; where the cursor is: segment and Message.

        Raises OSError, or ExportError if another process has it.
        """
        # The folder above too, but no more: a path that is wrong is not to be made.
        for path in (self.directory.parent, self.directory):
            with contextlib.suppress(FileExistsError):
                path.mkdir(_FOLDER_MODE)
        lock = self._lock = self._open("lock")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.close()
            raise ExportError(
                f"{self._name}: spool {self.directory} is used by another process",
                "stop that one, or give this one another folder",
                may_pass=True,
            ) from None
        try:
            self._cursor = self._open("cursor")
            stored = os.pread(self._cursor, _CURSOR.size, 0)
        except OSError:
            self.close()
            raise
        number, index = _CURSOR.unpack(stored) if len(stored) == _CURSOR.size else (0, 0)
        return number, index

    def set_cursor(self, number: int, index: int) -> None:
        """The next Message to send. It outlives the process, but is not forced to the disk."""
        with contextlib.suppress(OSError):  # it overwrites a file in place; what fails here fails elsewhere too
            os.pwrite(self._cursor, _CURSOR.pack(number, index), 0)

    def close(self) -> None:
        """Give the folder back."""
        for fd in (self._cursor, self._lock):
            if fd >= 0:
                os.close(fd)
        self._cursor = self._lock = -1

    def _open(self, name: str) -> int:
        return os.open(self.directory / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _FILE_MODE)
