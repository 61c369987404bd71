"""`netobs status`: the state document of a daemon, for people and as JSON."""

from __future__ import annotations

import json
import sys

from netobs.cli import control_client

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
    return 0
