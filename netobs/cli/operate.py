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


def _lengths(context: click.Context, param: click.Parameter, text: str) -> list[int]:
    try:
        return [int(length) for length in text.split(",")]
    except ValueError:
        raise click.BadParameter("expected two lengths of networks, like 24,64", context, param) from None


@click.command(context_settings=CONTEXT)
@click.option(
    "--by", metavar="LIST", help="Group by these: proto,src,sport,dst,dport,srcnet,dstnet,if,dir,vlan. [each flow]"
)
@click.option(
    "--sort",
    type=click.Choice(("bits", "packets", "flows")),
    default="bits",
    show_default=True,
    help="By bits, packets or new flows per second.",
)
@click.option("--filter", metavar="EXPR", default="", help='Like "host 192.0.2.1 and port 443". [all flows]')
@click.option(
    "--prefix",
    "prefixes",
    metavar="N,M",
    default="24,64",
    show_default=True,
    callback=_lengths,
    help="Lengths of srcnet and dstnet: IPv4, IPv6.",
)
@click.option("--rows", type=click.IntRange(1, 1000), default=20, show_default=True, help="Without a terminal: lines.")
@click.option(
    "--interval", type=click.IntRange(1, 3600), default=1, show_default=True, help="Seconds between two looks."
)
@click.option("--once", is_flag=True, help="Print one look as text and exit, as without a terminal.")
@click.option("--count", type=click.IntRange(1), metavar="N", help="Print N looks and exit.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object for each look, until Ctrl-C.")
@click.option("--alone", is_flag=True, help="Do not ask a daemon: load and attach own programs.")
@_daemon_options
@click.pass_context
def top(context: click.Context, /, instance: str, control: str, **given: Any) -> None:
    """Show the top flows of this host now, looked at each second.

    The daemon's flow table is looked at, and nothing is taken out of it: root, or a member of the group netobs, may
    ask. Without a daemon, netobs loads and attaches its own programs for as long as it runs, as root. On a terminal, ?
    shows the keys.

    \b
    Filters: [src|dst] host ADDRESS, [src|dst] net ADDRESS/LENGTH, [src|dst] port N[-M], proto NAME, if NAME, vlan N,
    in, out, ip, ip6, tcp, udp, icmp; joined by and, or, not and parentheses.

    \b
    Examples:
      netobs top --by src --filter "port 53" --sort packets
      netobs top --by srcnet,dstnet --prefix 16,48 --once
      netobs top --json --count 60 --by if,dir
    """
    from netobs.cli import top as showing

    if given["alone"] and (instance or control):
        raise click.UsageError(f"--{'instance' if instance else 'control'} has no effect with --alone", context)
    if given["once"] and given["count"]:
        raise click.UsageError("--count has no effect with --once", context)
    keys = ("sort", "filter", "prefixes", "rows", "interval")
    asked: dict[str, Any] = {key: given[key] for key in keys}
    if given["by"] is not None:
        asked["by"] = [word.strip() for word in given["by"].split(",") if word.strip()]
    parent = context.parent
    assert parent is not None
    path = "" if given["alone"] else socket_of(context, instance, control)
    more = {key: given[key] for key in ("as_json", "once", "alone")}
    showing.run(showing.Options(parent.params["conf"], path, asked, count=given["count"] or 0, **more))


COMMANDS = (status, reload, top)
