"""The packages of this tree."""

from __future__ import annotations

import functools
import re
from pathlib import Path

from lab.namespaces import command
from lab.traffic import REPOSITORY

MAKE_TIMEOUT_S = 600


@functools.cache
def made(target: str) -> tuple[Path, ...]:
    """The files that ``make TARGET`` says it made; it is called once in a run. ``target``: deb or rpm."""
    said = command(["make", "-C", str(REPOSITORY), target], timeout=MAKE_TIMEOUT_S).stdout
    files = tuple(REPOSITORY / name for name in re.findall(r"^package: (dist/\S+)$", said, re.MULTILINE))
    assert files
    return files
