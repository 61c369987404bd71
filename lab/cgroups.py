"""A memory cgroup of a test's own, of whichever version this machine has."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.programs import wait_until
from lab.traffic import REPOSITORY


def _parents() -> Iterator[tuple[Path, str]]:
    """Folders in which a cgroup with a limit can be made, and the limit's file in it."""
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines():
        before, _, after = line.partition(" - ")
        top, (kind, _, options) = Path(before.split(" ")[4]), after.split(" ", 2)
        if kind == "cgroup2":
            control = top / "cgroup.subtree_control"
            if "memory" in (top / "cgroup.controllers").read_text(encoding="ascii").split():
                with contextlib.suppress(OSError):
                    control.write_text("+memory", encoding="ascii")
                    yield top, "memory.max"
        elif kind == "cgroup" and "memory" in options.split(","):
            yield top, "memory.limit_in_bytes"


@contextlib.contextmanager
def memory_cgroup(limit_bytes: int) -> Iterator[Path]:
    """An empty cgroup whose processes may take ``limit_bytes`` together. Skips where none can be made."""
    for parent, limit in _parents():
        folder = parent / f"nobs{os.getpid()}"
        try:
            folder.mkdir()
        except OSError:
            continue
        try:
            (folder / limit).write_text(str(limit_bytes), encoding="ascii")
            yield folder
        finally:
            _remove(folder)
        return
    pytest.skip("no cgroup with the memory controller can be made here")


def _remove(folder: Path) -> None:
    """The kernel keeps a cgroup until its last process is completely gone."""
    procs = folder / "cgroup.procs"
    wait_until(lambda: not procs.read_text(encoding="ascii"), f"{folder} is empty")
    folder.rmdir()


def inside(folder: Path) -> tuple[str, ...]:
    """A command that starts another one in the cgroup ``folder``. ``ip netns exec`` hides /sys/fs/cgroup from it, so
    that it goes back to the mounts of this process."""
    mounts = ("nsenter", f"--mount=/proc/{os.getpid()}/ns/mnt", f"--wd={REPOSITORY}")
    return (*mounts, "sh", "-c", f'echo $$ >{folder}/cgroup.procs && exec "$@"', "sh")
