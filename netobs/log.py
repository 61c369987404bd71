"""The log: standard error, in the form that whoever reads it there expects."""

from __future__ import annotations

import logging
import os
import sys

# sd-daemon(3): a line that begins with <N> has syslog priority N
PRIORITIES = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}


class JournalFormatter(logging.Formatter):
    """For systemd's journal, which adds the time and the unit itself."""

    def format(self, record: logging.LogRecord) -> str:
        """Every line has the priority in front."""
        prefix = f"<{PRIORITIES.get(record.levelno, 6)}>"
        return "\n".join(prefix + line for line in super().format(record).splitlines())


def set_up(level: str) -> None:
    """Sends the log to standard error. ``level``: debug, info, warning or error."""
    handler = logging.StreamHandler(sys.stderr)
    if "JOURNAL_STREAM" in os.environ:
        handler.setFormatter(JournalFormatter("%(message)s"))
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    root = logging.getLogger("netobs")
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    root.propagate = False
