"""The log on standard error, in the form that a terminal or systemd's journal expects."""

from __future__ import annotations

import contextlib
import logging
import os
import sys

# sd-daemon(3): a line that begins with <N> has syslog priority N
PRIORITIES = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}


def printable(text: str) -> str:
    """``text`` with everything unprintable escaped: what others have named moves no cursor and begins no line."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def printable_lines(text: str) -> list[str]:
    """The lines of ``text``, split at line feeds and nowhere else."""
    return [printable(line) for line in text.split("\n")]


class LogFormatter(logging.Formatter):
    """A record is one line, and a traceback one for each of its own, whatever a message has to repeat."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        """The line of the message."""
        record.message = printable(record.message)
        return super().formatMessage(record)

    def format(self, record: logging.LogRecord) -> str:
        """All lines."""
        return "\n".join(printable_lines(super().format(record)))


class JournalFormatter(LogFormatter):
    """For systemd's journal, which adds the time and the unit itself."""

    def format(self, record: logging.LogRecord) -> str:
        """Every line has the priority in front."""
        prefix = f"<{PRIORITIES.get(record.levelno, 6)}>"
        return "\n".join(prefix + line for line in super().format(record).split("\n"))


def set_up(level: str) -> None:
    """Sends the log to standard error. ``level``: debug, info, warning or error."""
    handler = logging.StreamHandler(sys.stderr)
    if _to_journal():
        handler.setFormatter(JournalFormatter("%(message)s"))
    else:
        handler.setFormatter(LogFormatter("%(asctime)s %(levelname)s %(message)s"))
    root = logging.getLogger("netobs")
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    root.propagate = False


def complain(problem: str) -> None:
    """Prints the reason why a command ends on standard error: as a log line for the journal, else as a message."""
    prefix = f"<{PRIORITIES[logging.ERROR]}>" if _to_journal() else "netobs: "
    with contextlib.suppress(OSError):  # nobody can be told, and the exit status still counts
        print("\n".join(prefix + line for line in printable_lines(problem)), file=sys.stderr)


def _to_journal() -> bool:
    """Whether systemd connected standard error to its journal (systemd.exec(5), JOURNAL_STREAM)."""
    try:
        state = os.fstat(sys.stderr.fileno())
    except (OSError, ValueError, AttributeError):  # closed, or not a file
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{state.st_dev}:{state.st_ino}"
