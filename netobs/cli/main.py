"""The command line."""

from __future__ import annotations

import functools
import gc
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable

import click
from click.core import ParameterSource

from netobs import DEFAULT_CONF, __version__
from netobs.base.words import ATTACH_METHODS, FLOW_TABLES, PACKET_FORMATS, PROTOCOLS
from netobs.cli import operate, start
from netobs.cli.doctor import doctor
from netobs.cli.operate import CONTEXT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from netobs.config.values import Kind

MEANINGLESS = {
    "recorded": ("filter", "interface", "duration", "count", "snaplen", "alone"),
    "alone": ("connect", "tls", "ca", "cert"),
}
"""Options of `netobs capture`, each with the options that have no effect beside it."""


@click.group(invoke_without_command=True, context_settings=CONTEXT)
@click.option(
    "--conf", type=click.Path(path_type=Path), default=DEFAULT_CONF, show_default=True, help="Configuration file."
)
@click.option("--dry-run", is_flag=True, help="Check everything, print the plan, attach and send nothing.")
@click.version_option(__version__, prog_name="netobs")
@click.pass_context
def cli(context: click.Context, conf: Path, dry_run: bool) -> None:
    """Measure the traffic of this host's interfaces and export it as IPFIX.

    Without a command, netobs runs in the foreground as a daemon: it loads its BPF programs, attaches them to the
    interfaces that the configuration names, and exports flows until SIGTERM or SIGINT. Then it sends the last flows
    and exits. It needs root, or CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON.

    \b
    Examples:
      netobs --conf /etc/netobs.toml --dry-run   is the configuration right, and what would it do?
      netobs --conf /etc/netobs.toml             run
      netobs doctor                              what keeps packets from being counted on this host?
      netobs listen --port 4739                  show the flows that an exporter sends
      netobs listen --file FLOWS.ipfix           show the flows in a file
      netobs top                                 who uses the network now?
      netobs status                              what does the daemon do, and is anything wrong?
      netobs capture --write FILE.pcapng         capture packets
      netobs template check FILE --for nfdump    would this collector read my template?

    Exit status: 0 success, 1 a problem that the message names, 2 wrong usage of the command line, 70 an unexpected
    error, 75 a problem of the daemon that may resolve by itself: no interface has one of the configured names, too
    little memory, a spool in use.

    Shell completion: eval "$(_NETOBS_COMPLETE=bash_source netobs)" (or zsh_source, fish_source).
    """
    if context.invoked_subcommand is not None:
        return
    if not dry_run:
        start.daemon(conf)
        return
    from netobs import config as configuration
    from netobs.daemon import dry_run as planning

    plan = planning.make(configuration.load(conf))
    click.echo(plan.text())
    context.exit(1 if plan.problems else 0)


for command in (*operate.COMMANDS, doctor):
    cli.add_command(command)


@cli.command(context_settings=CONTEXT)
@click.option("--host", default="::", show_default=True, help="Address to listen on; :: is all, IPv4 and IPv6.")
@click.option("--port", type=click.IntRange(0, 65535), default=4739, show_default=True, help="UDP and TCP port.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per line; the keys are Information Elements.")
@click.option("--once", type=click.IntRange(1), metavar="N", help="Exit after N flows.")
@click.option("--options", is_flag=True, help="Also print options records; in the table as lines that start with #.")
@click.option("--check", is_flag=True, help="Print everything odd in the data, instead of the flows.")
@click.option("--file", "files", multiple=True, metavar="FILE...", help="Read IPFIX files; - is standard input.")
@click.argument("more", nargs=-1, metavar="")
@click.pass_context
def listen(
    context: click.Context,
    host: str,
    port: int,
    as_json: bool,
    once: int | None,
    options: bool,
    check: bool,
    files: tuple[str, ...],
    more: tuple[str, ...],
) -> None:
    """Receive IPFIX over UDP and TCP, NetFlow v9 and v5 over UDP, and print the flows.

    A collector that shows flows and stores none. It uses the names of the IANA registry.

    With --file it reads files of IPFIX Messages (RFC 5655) in the given order, and opens no socket.

    Exit status: 1 if a file was damaged or unreadable, 3 if --check found anything odd.
    """
    if check and options:
        raise click.UsageError("--options has no effect with --check")
    if not files:
        if more:
            raise click.UsageError(f"unexpected argument {more[0]!r}; files follow --file")
        from netobs.collector.receive import listen as serve

        gc.freeze()  # else each full collection walks all imported objects, which costs more than any Message
        is_odd = serve(host, port, as_json=as_json, once=once or 0, options=options, out=sys.stdout, check=check)
        context.exit(3 if is_odd else 0)
    given = [name for name in ("host", "port") if context.get_parameter_source(name) != ParameterSource.DEFAULT]
    if given:
        raise click.UsageError(f"--{given[0]} has no effect with --file")
    from netobs.collector.files import listen_files

    whole, is_odd = listen_files(
        (*files, *more), as_json=as_json, once=once or 0, options=options, out=sys.stdout, check=check
    )
    context.exit(1 if not whole else 3 if is_odd else 0)


@cli.command(context_settings=CONTEXT)
@click.option("--table", type=click.Choice(FLOW_TABLES), help="Test only this one.")
@click.option(
    "--attach",
    type=click.Choice(ATTACH_METHODS),
    default="auto",
    show_default=True,
    help="As the key capture.attach.",
)
@click.option("--flows", is_flag=True, help="Also print the flows, as netobs listen does.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.pass_context
def selftest(context: click.Context, table: str | None, attach: str, flows: bool, as_json: bool) -> None:
    """Check that netobs counts right on this host: send known traffic, and compare the exported flows with it.

    Everything happens in two network namespaces that only this command has: the real programs are attached to an
    interface there, and the flows are exported to the built-in collector. Nothing on the host is touched, and nothing
    is left. It takes some seconds, for each flow table in turn, and needs root.

    Exit status: 0 if every count is right; 1 if one is not, or if the test cannot be done.
    """
    from netobs.cli import selftest as command
    from netobs.selftest.runner import TABLES

    context.exit(0 if command.run([table] if table else TABLES, attach, as_json, flows) else 1)


class Value(click.ParamType):  # type: ignore[type-arg]  # a generic only in newer versions
    """An option with the same values as a key of the configuration. ``kind`` imports the key's type when needed."""

    def __init__(self, name: str, kind: Callable[[], Kind]) -> None:
        self.name = name
        self._kind = kind

    def convert(self, value: Any, param: click.Parameter | None, context: click.Context | None) -> Any:
        """The Python value."""
        from netobs.config.values import BadValue

        try:
            return self._kind().parse(value) if isinstance(value, str) else value
        except BadValue as error:
            self.fail("; ".join(error.reasons).replace(", in quotes", ""), param, context)


def _duration() -> Kind:
    from netobs.config.values import Duration

    return Duration("100ms", "24h")


def _endpoint() -> Kind:
    from netobs.config.addresses import Listen

    return Listen()


@cli.command(context_settings=CONTEXT)
@click.option("--filter", metavar="EXPR", default="", help="Packets to capture: tcp,80 or as in pcap-filter(7). [all]")
@click.option("--interface", metavar="IF", default="", help="Only on this one. [all that netobs captures on]")
@click.option("--write", metavar="FILE", default="-", show_default=True, help="File to write; - is standard output.")
@click.option("--format", type=click.Choice(PACKET_FORMATS), help="[pcap for FILE.pcap and FILE.cap, else pcapng]")
@click.option("--duration", type=Value("TIME", _duration), default=0, help="End after this time: 30s, 5m.")
@click.option("--count", type=click.IntRange(1), metavar="N", default=None, help="End after N packets.")
@click.option("--snaplen", type=click.IntRange(64, 262_144), metavar="N", help="Most octets of a packet to keep.")
@click.option("--recorded", is_flag=True, help="Write only the contents of the daemon's flight recorder.")
@click.option("--alone", is_flag=True, help="Do not ask a daemon: load and attach own programs.")
@click.option("--connect", type=Value("HOST:PORT", _endpoint), help="Ask this daemon, whatever the configuration says.")
@click.option("--tls", is_flag=True, help="The daemon of --connect uses TLS; --ca and --cert imply it.")
@click.option("--ca", metavar="FILE", default="", help="PEM file of the authorities for the daemon. [the system's]")
@click.option("--cert", metavar="FILE", default="", help="PEM file of the certificate to show to the daemon.")
@click.option("--key", metavar="FILE", default="", help="PEM file of its private key.")
@click.pass_context
def capture(context: click.Context, /, **given: Any) -> None:
    """Capture whole packets to a file, or into a pipe.

    Packets come from the daemon that runs on this host, if its configuration (--conf FILE, before the command)
    enables [packet_capture]. Otherwise netobs loads and attaches its own programs during the capture, as root or with
    the capabilities of the daemon. Ctrl-C ends it.

    \b
    Examples:
      netobs capture --filter "host 192.0.2.1 and port 443" --write FILE.pcapng
      netobs capture --interface eth0 --duration 10s | tshark -r -
      netobs capture --recorded --write FILE.pcapng
    """
    from netobs.cli import capture

    parent = context.parent
    assert parent is not None
    _refuse_together(context, given)
    options = {name: value for name, value in given.items() if value is not None and name != "duration"}
    capture.run(capture.Options(parent.params["conf"], duration_ns=given["duration"], **options))


def _refuse_together(context: click.Context, given: dict[str, Any]) -> None:
    """Raises UsageError for an option that has no effect beside another."""
    for one, others in MEANINGLESS.items():
        for other in others:
            if given[one] and given[other]:
                raise click.UsageError(f"--{other} has no effect with --{one}", context)
    if bool(given["cert"]) != bool(given["key"]):
        raise click.UsageError("--cert and --key go together", context)
    if given["tls"] and not given["connect"]:
        raise click.UsageError("--tls needs --connect; for the daemon of this host, the configuration decides", context)


protocol_option = click.option(
    "--protocol",
    type=click.Choice(tuple(PROTOCOLS)),
    default=next(iter(PROTOCOLS)),
    show_default=True,
    help="As in [[collector]].",
)


@cli.group(context_settings=CONTEXT)
def template() -> None:
    """List, show and check flow templates.

    NAME is the `template` key of a [[collector]]: a name from the list, or the path of a file.
    """


@template.command("list", context_settings=CONTEXT)
def template_list() -> None:
    """List the installed template files with their contents."""
    from netobs.cli import template as template_command

    click.echo("\n".join(template_command.listing()))


@template.command("show", context_settings=CONTEXT)
@click.argument("name")
@click.option("--wire", is_flag=True, help="The Template Records in hexadecimal, with offsets.")
@protocol_option
def template_show(name: str, wire: bool, protocol: str) -> None:
    """Print the fields of the templates NAME."""
    from netobs.cli import template as template_command

    click.echo("\n".join(template_command.show(name, wire, protocol)))


@template.command("check", context_settings=CONTEXT)
@click.argument("file")
@click.option("--for", "collector", metavar="COLLECTOR", default="", help="Check only for this collector.")
@click.option(
    "--max-message-size", type=click.IntRange(1, 65535), default=1400, show_default=True, help="As in [[collector]]."
)
@protocol_option
@click.pass_context
def template_check(context: click.Context, file: str, collector: str, max_message_size: int, protocol: str) -> None:
    """Check a template FILE, and print which collectors it suits.

    Exit status: 1 if netobs cannot use the file or, with --for, if the collector would lose flows or show them wrong;
    otherwise 0.
    """
    from netobs.cli import template as template_command

    lines, usable = template_command.check(file, collector, max_message_size, protocol)
    click.echo("\n".join(lines))
    context.exit(0 if usable else 1)


def _run(arguments: Sequence[str] | None) -> None:
    try:
        cli(arguments)
    except SystemExit:  # as click ends
        try:
            sys.stdout.flush()
        except BrokenPipeError:
            sys.exit(1)
        raise


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs any command; ``arguments`` are those of the command line by default."""
    start.guarded(functools.partial(_run, arguments))


if __name__ == "__main__":
    main()
