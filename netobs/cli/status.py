"""`netobs status`: the state document of a daemon, as a page for people or as JSON."""

from __future__ import annotations

import json
import os
import sys
from typing import TextIO

from netobs.base.log import printable
from netobs.cli import control_client
from netobs.cli.status_page import Line, page

PROBLEMS = 3
"""The exit status if the daemon runs, and something is wrong."""


def run(path: str, as_json: bool, all_interfaces: bool) -> int:
    """Prints the state of the daemon at the control socket ``path``; returns the exit status.

    :raises NetobsError: no daemon answers.
    """
    state = control_client.ask(path, "status")["status"]
    if as_json:
        json.dump(state, sys.stdout, indent=2)
        print()
    else:
        coloured = has_colours(sys.stdout)
        for line in page(state, all_interfaces):
            print(shown(line, coloured))
    return PROBLEMS if state["problems"] else 0


def has_colours(out: TextIO) -> bool:
    """Whether ``out`` is a terminal whose user wants colours."""
    return out.isatty() and not os.environ.get("NO_COLOR")


def shown(line: Line, coloured: bool) -> str:
    """The line as it is printed: what others have named moves no cursor."""
    text = printable(line.text)
    return f"\x1b[{line.tone.value}m{text}\x1b[0m" if coloured and line.tone.value else text
