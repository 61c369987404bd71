"""A disk that hangs when a test wants it to: an ext4 file system on a loop device, frozen (ioctl FIFREEZE)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

_MIB = 1 << 20
_HOLDER = """
import fcntl, os, select, sys
FIFREEZE, FITHAW = 0xC0045877, 0xC0045878  # uapi linux/fs.h
fd = os.open(sys.argv[1], os.O_RDONLY | os.O_DIRECTORY)
fcntl.ioctl(fd, FIFREEZE, 0)
try:
    print("frozen", flush=True)
    select.select([sys.stdin], [], [], 60)
finally:
    fcntl.ioctl(fd, FITHAW, 0)
"""
"""Thaws when its input ends, which is also when the test's process has died, and in any case after a minute: a process
that waits for the disk itself cannot be killed before."""


class Disk:
    """A file system below ``directory``, mounted from ``with`` to its end. Raises OSError if none can be mounted."""

    def __init__(self, directory: Path, size_mib: int = 16) -> None:
        self.path = directory / "disk"
        self._image = directory / "disk.img"
        self._size_bytes = size_mib * _MIB
        self._holder: subprocess.Popen[str] | None = None

    def __enter__(self) -> Disk:
        self.path.mkdir()
        with self._image.open("wb") as image:
            image.truncate(self._size_bytes)
        _run("mkfs.ext4", "-q", "-F", str(self._image))
        _run("mount", "-o", "loop", str(self._image), str(self.path))
        return self

    def __exit__(self, *_: object) -> None:
        self.thaw()
        _run("umount", "--lazy", str(self.path))  # should a thread of a test that failed still use it

    def freeze(self) -> None:
        """What writes to the file system waits, without an end (state D), until ``thaw``."""
        self._holder = subprocess.Popen(
            [sys.executable, "-c", _HOLDER, str(self.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._holder.stdout is not None
        if self._holder.stdout.readline() != "frozen\n":
            raise OSError(f"{self.path} cannot be frozen")

    @property
    def is_frozen(self) -> bool:
        """Whether it still hangs."""
        return self._holder is not None and self._holder.poll() is None

    def thaw(self) -> None:
        """All goes on. Nothing happens where nothing is frozen."""
        if self._holder is not None:
            self._holder.communicate()
            self._holder = None


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(f"{' '.join(command)}: {done.stderr.strip()}")
