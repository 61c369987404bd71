"""``netobs-helper``: started by systemd for the first connection to its socket."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import socket
import sys
from collections.abc import Mapping

from netobs import __version__
from netobs.base import clock
from netobs.base import log as logs
from netobs.base.errors import ConfigError, NetobsError
from netobs.base.loop import EventLoop
from netobs.helper import config as configuration
from netobs.helper.namespaces import FOLDER, NamedNamespaces
from netobs.helper.server import Server
from netobs.helper.verbs import Verbs

FIRST_LISTEN_FD = 3  # sd_listen_fds(3)
_BACKLOG = 16


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="netobs-helper", description="Does for netobs what only root may do.")
    parser.add_argument("--conf", default=configuration.PATH, metavar="FILE", help="default: %(default)s")
    parser.add_argument("--socket", default="", metavar="PATH", help="listen there, without systemd")
    parser.add_argument("--folder", default=FOLDER, metavar="PATH", help="of the namespaces; default: %(default)s")
    parser.add_argument("--version", action="version", version=f"netobs-helper {__version__}")
    arguments = parser.parse_args()
    logs.set_up("info")
    try:
        _run(arguments.conf, arguments.socket, arguments.folder)
    except NetobsError as error:
        logs.complain(str(error))
        sys.exit(1)


def _run(conf: str, path: str, folder: str) -> None:
    config = configuration.load(conf)
    uids = config.uids()
    listening = _bound(path) if path else _passed(os.environ)
    names = NamedNamespaces(config.selector, folder)
    with EventLoop() as loop, contextlib.closing(names):
        server = Server(loop, listening, uids, Verbs(names), ends=not path)
        for signum in (signal.SIGTERM, signal.SIGINT):
            loop.on_signal(signum, lambda _now_ns: loop.stop())
        try:
            server.start(clock.monotonic_ns())
            loop.run()
        finally:
            server.close()
            if path:
                os.unlink(path)


def _passed(environment: Mapping[str, str]) -> socket.socket:
    """The socket that systemd listens at."""
    if environment.get("LISTEN_PID") != str(os.getpid()) or environment.get("LISTEN_FDS") != "1":
        raise ConfigError(["no socket was passed; start netobs-helper.socket, or give --socket PATH"])
    sock = socket.socket(fileno=FIRST_LISTEN_FD)
    sock.set_inheritable(False)
    if (sock.family, sock.type) != (socket.AF_UNIX, socket.SOCK_SEQPACKET):
        raise ConfigError(["the passed socket is not one of ListenSequentialPacket=; see netobs-helper.socket"])
    return sock


def _bound(path: str) -> socket.socket:
    """A socket at ``path``, which only root may connect to."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    former = os.umask(0o177)
    try:
        sock.bind(path)
        sock.listen(_BACKLOG)
    except OSError as error:
        sock.close()
        raise ConfigError([f"--socket {path}: {error.strerror}"]) from error
    finally:
        os.umask(former)
    return sock


if __name__ == "__main__":
    main()
