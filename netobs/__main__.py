"""``netobs``, and ``python -m netobs``."""

from __future__ import annotations

import os
import signal
import sys

STANDARD_OUTPUT, STANDARD_ERROR = 1, 2


def main() -> None:
    """Entry point. Until a command has something to end well, a signal ends it at once, whatever it is doing.

    Python's own handler raises KeyboardInterrupt, which is lost where no exception may pass: in the callbacks of an
    import, of ctypes, of the garbage collector; and no handler runs while libpcap compiles, or the name service is
    asked. A shell starts background jobs with SIGINT ignored, and their scripts end them by it.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    _open_standard_streams()
    from netobs.cli.main import main as command_line

    command_line()


def _open_standard_streams() -> None:
    """Opens /dev/null for each standard stream that was closed by who started the program: what is written there is not
    wanted. Else the next socket or map would get its number, and be taken for standard error."""
    fd = os.open(os.devnull, os.O_RDWR)
    while fd <= STANDARD_ERROR:
        fd = os.open(os.devnull, os.O_RDWR)
    os.close(fd)
    if sys.stdout is None:
        sys.stdout = open(STANDARD_OUTPUT, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(STANDARD_ERROR, "w", encoding="utf-8", closefd=False)  # noqa: SIM115


if __name__ == "__main__":
    main()
