"""Reads facts about this host and process from /proc and /sys."""

from __future__ import annotations

import os
import re
from pathlib import Path

from netobs.base.errors import CaptureError


def read(path: str) -> str:
    """The text of a file there.

    :raises CaptureError: it cannot be read, as in a container that has no /proc or no /sys.
    """
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        top = "/".join(path.split("/")[:2])
        raise CaptureError(
            f"{path}: {error.strerror}", f"mount {top} (in a container: its own, or the host's, read-only)"
        ) from None


def read_if_there(path: str) -> str:
    """The text of a file there, empty where it cannot be read."""
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def is_realtime(version: str = "") -> bool:
    """Whether the kernel is a PREEMPT_RT one. ``version``: what ``uname -v`` says, "" for this kernel's.

    Every kernel has the word in there (scripts/mkcompile_h, init/Makefile), and every process may read it; its
    configuration is in a file that need not be installed.
    """
    return re.search(r"\bPREEMPT[_ ]RT\b", version or os.uname().version) is not None
