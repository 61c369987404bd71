"""Commands that ask a running daemon: their words and options."""

from __future__ import annotations

import os
from typing import Any, Callable

import click

from netobs.base.errors import ConfigError, NetobsError

CONTEXT: dict[str, Any] = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
RELOAD_S = 120.0
"""How long a reload may take: it waits for name servers and disks."""


def _daemon_options(command: Callable[..., Any]) -> Callable[..., Any]:
    instance = click.option("--instance", metavar="NAME", default="", help="The daemon of netobs@NAME.service.")
    control = click.option("--control", metavar="PATH", default="", help="The daemon with this control socket.")
    return instance(control(command))


def socket_of(context: click.Context, instance: str, control: str) -> str:
    """The path of the control socket that the options name; --conf, before the command, is the daemon's file."""
    from netobs.config.identity import INSTANCES, control_socket

    if instance and control:
        raise click.UsageError("--instance has no effect with --control", context)
    if "/" in instance:
        raise click.UsageError(f"--instance {instance}: a name as in netobs@NAME.service, not a path", context)
    parent = context.parent
    assert parent is not None
    return control or control_socket(f"{INSTANCES}/{instance}.toml" if instance else parent.params["conf"])


@click.command(context_settings=CONTEXT)
@click.option("--json", "as_json", is_flag=True, help="The whole state as one JSON object.")
@click.option("--interfaces", is_flag=True, help="One line for each interface, however many there are.")
@_daemon_options
@click.pass_context
def status(context: click.Context, as_json: bool, interfaces: bool, instance: str, control: str) -> None:
    """Show what the daemon does, and what is wrong.

    The daemon is the one that runs with --conf FILE, before the command, unless --instance or --control names
    another. It is asked at its control socket, as root or as a member of the group netobs.

    Exit status: 0 all is well, 1 no daemon answers, 3 the daemon runs with problems, which the first lines name.
    """
    from netobs.cli import status as showing

    context.exit(showing.run(socket_of(context, instance, control), as_json, interfaces))


@click.command(context_settings=CONTEXT)
@click.argument("pid", type=click.IntRange(1), required=False)
@_daemon_options
@click.pass_context
def reload(context: click.Context, pid: int | None, instance: str, control: str) -> None:
    """Make the daemon read its configuration file again, and say what came of it.

    A file with a mistake is refused: netobs names each mistake, and the daemon goes on as before. The daemon is the
    one that runs with --conf FILE, before the command, unless --instance or --control names another.

    With PID, the command checks the file of --conf, then sends SIGHUP to that process, whose log has the result.
    """
    if pid is not None:
        if instance or control:
            raise click.UsageError(f"--{'instance' if instance else 'control'} has no effect with PID", context)
        _signal(context, pid)
        return
    from netobs.cli import control_client

    try:
        answer = control_client.ask(socket_of(context, instance, control), "reload", RELOAD_S)
    except control_client.Refused as error:
        raise ConfigError(str(error).split("\n")) from None
    outcome = answer["reload"]
    for warning in outcome["warnings"]:
        click.echo(f"netobs: {warning}", err=True)
    click.echo("reload: done")


def _signal(context: click.Context, pid: int) -> None:
    import signal

    from netobs import config as configuration
    from netobs.daemon import reload as reloading

    parent = context.parent
    assert parent is not None
    reloading.check(configuration.load(parent.params["conf"]))
    try:
        os.kill(pid, signal.SIGHUP)
    except OSError as error:
        raise NetobsError(f"process {pid}: {error.strerror}", "name the process ID of the netobs daemon") from None


COMMANDS = (status, reload)
