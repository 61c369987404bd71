"""``netobs``, and ``python -m netobs``."""

from __future__ import annotations

import functools
import os
import signal
import sys

STANDARD_OUTPUT, STANDARD_ERROR = 1, 2


def main() -> None:
    """Entry point. Until a command needs an orderly end, a signal ends the program at once, whatever it is doing.

    Python's own handler raises KeyboardInterrupt, which gets lost in the callbacks of imports, ctypes and the garbage
    collector, because no exception can leave them. And no handler runs while libpcap compiles or the resolver waits. A
    shell starts background jobs with SIGINT ignored, and scripts still end them by SIGINT.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    _open_standard_streams()
    from netobs.cli import start

    conf = start.configuration_of(sys.argv[1:])
    if conf is not None:
        start.guarded(functools.partial(start.daemon, conf))
    else:
        from netobs.cli.main import main as command_line

        command_line()


def _open_standard_streams() -> None:
    """Opens /dev/null for each standard stream that is closed at the start. Otherwise the next socket or map would get
    its number, and would receive the output for standard error."""
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
