"""The command line."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from netobs import __version__
from netobs.errors import ConfigError, NetobsError

# numpy's linear algebra, which nothing here uses, would start a thread for each CPU of the host.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

DEFAULT_CONF = "/etc/netobs.toml"
CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


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
    interfaces that the configuration names, and exports flows until SIGTERM or SIGINT, when it takes out and sends
    what is left. It needs root, or CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON.

    \b
    Examples:
      netobs --conf /etc/netobs.toml --dry-run   is the configuration right, and what would it do?
      netobs --conf /etc/netobs.toml             run
      netobs listen --port 4739                  look at what an exporter sends

    Exit status: 0 success, 1 a problem that the message names, 2 wrong usage of the command line.

    Shell completion: eval "$(_NETOBS_COMPLETE=bash_source netobs)" (or zsh_source, fish_source).
    """
    if context.invoked_subcommand is not None:
        return
    from netobs import config as configuration

    settings = configuration.load(conf)
    if dry_run:
        from netobs import plan as planning

        plan = planning.make(settings)
        click.echo(plan.text())
        context.exit(1 if plan.problems else 0)

    from netobs import daemon, log

    log.set_up(settings.log.level)
    daemon.run(settings)


@cli.command(context_settings=CONTEXT)
@click.option("--host", default="::", show_default=True, help="Address to listen on; :: is all, IPv4 and IPv6.")
@click.option("--port", type=click.IntRange(0, 65535), default=4739, show_default=True, help="UDP and TCP port.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line; the keys are Information Elements.")
@click.option("--once", type=click.IntRange(1), metavar="N", help="Exit after N flows.")
def listen(host: str, port: int, as_json: bool, once: int | None) -> None:
    """Receive IPFIX over UDP and TCP and print the flows.

    A collector for looking, not for keeping: it shows what an exporter sends, in the words of the IANA registry.
    """
    from netobs.listen import listen as serve

    serve(host, port, as_json=as_json, once=once or 0, out=sys.stdout)


def main() -> None:
    """Entry point. A mistake of the operator's is a line on standard error, not a traceback."""
    try:
        cli()
    except ConfigError as error:
        for problem in error.problems:
            click.echo(f"netobs: {problem}", err=True)
        sys.exit(1)
    except NetobsError as error:
        click.echo(f"netobs: {error}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
