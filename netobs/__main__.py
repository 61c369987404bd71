"""``netobs``, and ``python -m netobs``."""

from __future__ import annotations

import signal


def main() -> None:
    """Entry point. Until a command has something to end well, a signal ends it at once, whatever it is doing.

    Python's own handler raises KeyboardInterrupt, which is lost where no exception may pass: in the callbacks of an
    import, of ctypes, of the garbage collector; and no handler runs while libpcap compiles, or the name service is
    asked. A shell starts background jobs with SIGINT ignored, and their scripts end them by it.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    from netobs.cli import main as command_line

    command_line()


if __name__ == "__main__":
    main()
