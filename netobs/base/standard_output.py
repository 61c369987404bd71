"""Standard output of a command: what cannot be written to it is one line on standard error, not a traceback."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterator

from netobs.base.errors import NetobsError


class OutputError(NetobsError):
    """Standard output takes nothing more: the disk is full, for example."""


class _Output(io.TextIOWrapper):
    """Raises OutputError; BrokenPipeError where the reader has gone."""

    def write(self, text: str) -> int:
        if text == "":  # click's question whether it may write text: an error would be lost there
            return 0
        with self._failing_once():
            return super().write(text)

    def flush(self) -> None:
        with self._failing_once():
            super().flush()

    @contextlib.contextmanager
    def _failing_once(self) -> Iterator[None]:
        """After a failure everything goes to the null device, so that the interpreter's last flush succeeds."""
        try:
            yield
        except OSError as error:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self.fileno())
            os.close(null)
            if isinstance(error, BrokenPipeError):
                raise
            raise OutputError(f"standard output cannot be written: {error.strerror}") from error


def guard() -> None:
    """Has ``sys.stdout`` raise OutputError in place of OSError, if it is a file. Its buffering stays."""
    out = sys.stdout
    if isinstance(out, io.TextIOWrapper):
        settings = (out.encoding, out.errors, None, out.line_buffering, out.write_through)
        sys.stdout = _Output(out.detach(), *settings)
