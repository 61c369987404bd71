"""Descriptors that outlive this process without a service manager: pins in a BPF file system, and memory in a tmpfs."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
from pathlib import Path

from netobs.base.errors import CaptureError
from netobs.base.keeper import HeldDescriptors
from netobs.kernel import host, libbpf

log = logging.getLogger("netobs.capture")

MEMORY = Path("/run/netobs/kept")
"""Where the files of memory are, in a folder for each folder of pins: a BPF file system has no files."""


class Pins(HeldDescriptors):
    """A ``Keeper`` of maps, programs and links, pinned in ``folder``, and of memory. A socket is not kept: only BPF
    objects can be pinned (kernel/bpf/inode.c: bpf_fd_probe_obj)."""

    keeps = True

    def __init__(self, folder: Path, memory: Path = MEMORY) -> None:
        """Makes both folders, and opens what the former process has left in them.

        :raises CaptureError: ``folder`` is in no BPF file system, or cannot be written.
        """
        self._folder = folder
        self._memory = memory / str(folder).strip("/").replace("/", "-")
        if not _is_in_bpf_fs(folder):
            raise CaptureError(
                f'capture.pin "{folder}": no BPF file system there',
                "set a folder in /sys/fs/bpf, and mount one there if need be: mount -t bpf bpf /sys/fs/bpf",
            )
        try:
            for each in (self._folder, self._memory):
                each.mkdir(mode=0o700, parents=True, exist_ok=True)
            former = {path.name: libbpf.pinned(path) for path in self._folder.iterdir()}
            former.update({path.name: os.open(path, os.O_RDWR | os.O_CLOEXEC) for path in self._memory.iterdir()})
        except OSError as error:
            raise CaptureError(
                f'capture.pin "{folder}": {error.filename or folder}: {error.strerror}',
                "make the folder, for the user that netobs runs as",
            ) from None
        super().__init__(former)

    def memory(self, name: str) -> int:
        self.drop(name)
        fd = os.open(self._memory / name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        self._own[name] = fd
        return fd

    def keep(self, name: str, fd: int) -> None:
        self.drop(name)
        try:
            libbpf.pin(fd, self._folder / name)
        except OSError as error:
            if error.errno != errno.EINVAL:
                log.warning("%s is not kept for the next start: %s", self._folder / name, error.strerror)

    def drop(self, name: str) -> None:
        self._close_held(name)
        for folder in (self._folder, self._memory):
            with contextlib.suppress(FileNotFoundError):
                (folder / name).unlink()

    def forget(self) -> None:
        """Keeps nothing any more."""
        for folder in (self._folder, self._memory):
            for path in list(folder.iterdir()):
                self.drop(path.name)

    def settle(self, within_ns: int) -> None:
        """Nothing is on its way."""


def _is_in_bpf_fs(folder: Path) -> bool:
    """Whether the innermost mount that has ``folder`` is a BPF file system (proc(5), mountinfo)."""
    lines = [line.partition(" - ") for line in host.read_if_there("/proc/self/mountinfo").splitlines()]
    kinds = {Path(mount.split(" ")[4]): of.split(" ")[0] for mount, _, of in lines}
    return next((kinds[each] for each in (folder, *folder.parents) if each in kinds), "") == "bpf"
