"""What libbpf says, in our log."""

from __future__ import annotations

import ctypes
import logging
from ctypes import POINTER, byref, c_char_p, c_int, c_void_p

from netobs.kernel.libbpf_types import PrintCallback

log = logging.getLogger("netobs.libbpf")

LOG_TAIL_BYTES = 1 << 16  # of what libbpf says in one call
LEVELS = (logging.INFO, logging.DEBUG, logging.DEBUG)  # of libbpf's warn, info, debug: one quieter in ours

KERNEL_MESSAGE = "libbpf: Kernel error message: "
"""Prefix of rtnetlink's messages, before its own text."""


class LibbpfLog:
    """Takes libbpf's output. Keeps its warnings, the verifier's log among them, for the call that caused them."""

    def __init__(self) -> None:
        self.warnings: list[str] = []
        self.callback = PrintCallback(self._print)
        self._libc = ctypes.CDLL(None)
        self._libc.vasprintf.argtypes, self._libc.vasprintf.restype = [POINTER(c_void_p), c_char_p, c_void_p], c_int
        self._libc.free.argtypes, self._libc.free.restype = [c_void_p], None

    def _print(self, level: int, text: bytes, arguments: int) -> int:
        if level > 1 and not log.isEnabledFor(logging.DEBUG):
            return 0  # hundreds of lines at each load
        lines = self._tail(text, arguments).decode(errors="replace").rstrip().split("\n")
        if level == 0:
            self.warnings += lines
        if lines[:1] and lines[0].startswith(KERNEL_MESSAGE):
            level = 2  # of an answer that was expected, or that its caller explains: a qdisc is there already
        # Many lines are the verifier's log, whose end is logged by who asked for the load.
        said_at = LEVELS[min(level, 2)] if len(lines) == 1 else logging.DEBUG
        for line in lines:
            log.log(said_at, "%s", line)
        return 0

    def _tail(self, text: bytes, arguments: int) -> bytes:
        """The end of a message. libbpf passes the whole of the verifier's log in one call, up to 16 MiB, and the reason
        for a refusal is in its last lines."""
        whole = c_void_p()
        size: int = self._libc.vasprintf(byref(whole), text, arguments)
        if size < 0:  # no memory
            return text
        try:
            kept = min(size, LOG_TAIL_BYTES)
            return ctypes.string_at((whole.value or 0) + size - kept, kept)
        finally:
            self._libc.free(whole)
