"""``netobs doctor``: words and options."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from netobs.base.errors import NetobsError
from netobs.cli.operate import CONTEXT, socket_of

if TYPE_CHECKING:
    from netobs.doctor.report import Report
    from netobs.doctor.running import State


@click.command(context_settings=CONTEXT)
@click.option("--json", "as_json", is_flag=True, help="One JSON object with all findings and interfaces.")
@click.option("--bundle", type=click.Path(path_type=Path), metavar="FILE", help="Also write FILE for a support ticket.")
@click.option("--with-addresses", is_flag=True, help="Do not mask addresses and host names in the bundle.")
@click.pass_context
def doctor(context: click.Context, as_json: bool, bundle: Path | None, with_addresses: bool) -> None:
    """Look for what keeps packets from being counted, and change nothing.

    For each selected interface: who else is on its hooks, in which order, and which offloads and virtual functions
    bypass the host. For the host: kernel, capabilities, limits, clock, and collectors on this host. It works with and
    without a running daemon; without root it names what it could not see. --conf FILE, before the command, is the
    configuration.

    Exit status: 0 nothing worse than a note, 1 the host could not be examined, 3 warnings or problems.
    """
    from netobs.doctor import report

    if with_addresses and bundle is None:
        raise click.UsageError("--with-addresses has no effect without --bundle", context)
    parent = context.parent
    assert parent is not None
    state, why = _state(context)
    found = report.examine(parent.params["conf"], state, why)
    _show(found, as_json)
    if bundle is not None:
        from netobs.doctor.bundle import write

        size_bytes = write(bundle, found, state, with_addresses)
        click.echo(f"netobs: {bundle} written, {size_bytes} bytes; read it before you send it", err=True)
    context.exit(found.exit_status)


def _state(context: click.Context) -> tuple[State | None, str]:
    """The state document of the daemon that runs with this file, or why there is none."""
    from netobs.cli import control_client

    try:
        return control_client.ask(socket_of(context, "", ""), "status")["status"], ""
    except NetobsError as error:
        return None, str(error)


def _show(found: Report, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(found.as_json(), indent=2))
        return
    coloured = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    click.echo("\n".join(found.lines(coloured)))
