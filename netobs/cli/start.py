"""Starts the daemon, which needs no click, and reports the errors of any command."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Callable

from netobs import DEFAULT_CONF
from netobs.base.errors import ConfigError, NetobsError
from netobs.base.log import complain
from netobs.base.standard_output import guard as guard_standard_output

# numpy's linear algebra, which nothing here uses, would start a thread for each CPU of the host.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def configuration_of(arguments: Sequence[str]) -> Path | None:
    """The configuration file, if the ``arguments`` of the command line only start the daemon; None: click reads them.

    A shell asks for completions by an environment variable.
    """
    if "_NETOBS_COMPLETE" in os.environ:
        return None
    if len(arguments) == 2 and arguments[0] == "--conf" and not arguments[1].startswith("-"):
        return Path(arguments[1])
    return None if arguments else Path(DEFAULT_CONF)


def daemon(conf: Path) -> None:
    """Runs the daemon until a signal ends it. Raises NetobsError."""
    from netobs import config as configuration
    from netobs.base import log

    settings = configuration.load(conf)
    from netobs.daemon import daemon

    log.set_up(settings.log.level)
    daemon.run(settings)


def guarded(command: Callable[[], None]) -> None:
    """Runs ``command``. An operator's mistake gives a line on standard error, not a traceback."""
    guard_standard_output()
    try:
        command()
    except ConfigError as error:
        for problem in error.problems:
            complain(problem)
        sys.exit(1)
    except NetobsError as error:
        complain(str(error))
        sys.exit(os.EX_TEMPFAIL if error.may_pass else 1)
    except Exception:
        # Not 1, which is Python's own status: systemd restarts the service after a crash, but not after a mistake.
        logging.getLogger("netobs").exception("netobs ends because of an unexpected error")
        sys.exit(os.EX_SOFTWARE)
