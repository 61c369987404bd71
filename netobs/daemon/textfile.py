"""Writes the metrics to a file, for the textfile collector of node_exporter: in a thread, as a disk may hang."""

from __future__ import annotations

import logging
import os
from typing import Callable

from netobs.base import background
from netobs.base.clock import NS_PER_S
from netobs.base.errors import ExportError, NetobsError
from netobs.base.loop import EventLoop, Timer

log = logging.getLogger("netobs")

LEAST_INTERVAL_NS = 15 * NS_PER_S
KEY = "metrics.textfile"
_NOT_WRITABLE = "the user of netobs cannot write to its folder; see METRICS in netobs(8)"


def check(path: str) -> None:
    """Whether a file can be made there.

    :raises ExportError: it cannot.
    """
    folder = os.path.dirname(path)
    if not os.path.isdir(folder):
        raise ExportError(f"{KEY} {path}: there is no folder {folder}", "make it, or install node_exporter")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ExportError(f"{KEY} {path}: {_NOT_WRITABLE}")


def write(path: str, content: bytes) -> None:
    """Replaces the file ``path``, which everybody may read. A reader sees the former content, or the new one.

    :raises ExportError: the disk does not take it.
    """
    beside = f"{path}.tmp"  # node_exporter reads *.prom
    try:
        fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        with open(fd, "wb") as file:
            file.write(content)
            os.fchmod(fd, 0o644)  # whatever the umask
        os.replace(beside, path)
    except OSError as error:
        what = _NOT_WRITABLE if isinstance(error, PermissionError) else error.strerror
        raise ExportError(f"{KEY} {path}: {what}") from error


class Textfile:
    """Writes what ``make`` makes to ``path``, from ``now_ns`` on every ``interval_ns``, or ``LEAST_INTERVAL_NS`` if
    that is longer, until ``close``. The file stays. ``make`` is called with ``now_ns``, and calls its first argument
    with the content, now or later."""

    def __init__(
        self,
        path: str,
        make: Callable[[Callable[[bytes | NetobsError, int], None], int], None],
        interval_ns: Callable[[], int],
        loop: EventLoop,
        now_ns: int,
    ) -> None:
        self.path = path
        self._make, self._interval_ns, self._loop = make, interval_ns, loop
        self._failed = self._closed = False
        self._timer: Timer = loop.call_at(now_ns, self._write)

    def _write(self, now_ns: int) -> None:
        self._make(self._on_made, now_ns)

    def _on_made(self, content: bytes | NetobsError, now_ns: int) -> None:
        if isinstance(content, NetobsError):
            self._on_written(content, now_ns)
        elif not self._closed:
            path, made = self.path, content
            background.run(self._loop, "textfile", lambda: write(path, made), self._on_written)

    def _on_written(self, result: NetobsError | None, now_ns: int) -> None:
        if self._closed:
            return
        if isinstance(result, NetobsError) and not self._failed:
            log.warning("%s; it is tried again", result)
        elif result is None and self._failed:
            log.info("%s %s: is written again", KEY, self.path)
        self._failed = result is not None
        self._timer = self._loop.call_at(now_ns + max(LEAST_INTERVAL_NS, self._interval_ns()), self._write)

    def close(self) -> None:
        """Ends it."""
        self._closed = True
        self._timer.cancel()
