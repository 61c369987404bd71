"""`netobs top`: the live table of the running daemon, or of own programs for as long as it runs."""

from __future__ import annotations

import contextlib
import errno
import json
import pickle
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from netobs import config as configuration
from netobs.base import child
from netobs.base.errors import NetobsError
from netobs.cli import control_client
from netobs.cli.top_page import page
from netobs.config import CaptureConfig
from netobs.live import query

ALONE = "netobs.live.alone"
_READ_BYTES = 1 << 18
_NOBODY = (errno.ENOENT, errno.ECONNREFUSED)


@dataclass(frozen=True)
class Options:
    """The command's options. ``path``: of the control socket; ``asked``: as in netobs.live.query."""

    conf: Path
    path: str
    asked: dict[str, Any] = field(default_factory=dict)
    as_json: bool = False
    once: bool = False
    count: int = 0
    alone: bool = False


class Frames:
    """The lines that come through a connection: ``read`` when ``fileno`` is readable, ``ask`` for something else."""

    def __init__(self, sock: socket.socket, source: str, said: IO[bytes] | None = None) -> None:
        """``source``: who sends them, for a message; ``said``: a file that has its log."""
        self._socket, self._source, self._said = sock, source, said
        self._received = b""

    def fileno(self) -> int:
        return self._socket.fileno()

    def ask(self, **given: object) -> None:
        """Frames show what ``given`` says from now on; what it does not say stays."""
        with contextlib.suppress(OSError):  # reading says why
            self._socket.sendall(json.dumps(given).encode() + b"\n")

    def read(self) -> list[dict[str, Any]]:
        """The frames that have come, or refusals, after waiting for some data.

        :raises NetobsError: there are no more.
        """
        try:
            data = self._socket.recv(_READ_BYTES)
        except OSError:
            data = b""
        if not data:
            raise NetobsError(f"the live table of {self._source} has ended", self.log() or "its log has the reason")
        *lines, self._received = (self._received + data).split(b"\n")
        try:
            return [dict(json.loads(line)) for line in lines]
        except ValueError:
            raise NetobsError(f"{self._source} does not answer as netobs does", "is it another version?") from None

    def frames(self) -> Iterator[dict[str, Any]]:
        """All that come.

        :raises NetobsError: there are no more, or one is a refusal.
        """
        while True:
            for frame in self.read():
                if not frame.get("ok"):
                    raise NetobsError(str(frame.get("error")))
                yield frame

    def log(self) -> str:
        """What the source has said in its log, as one line."""
        if self._said is None:
            return ""
        self._said.seek(0)
        return " ".join(self._said.read().decode(errors="replace").split())


def run(options: Options) -> None:
    """Shows frames, until the user or their count ends it.

    :raises NetobsError: there is nobody to ask, or nothing can be measured.
    """
    asked = query.parse(options.asked)  # a mistake is named before anything is started
    with _source(options, asked) as source:
        if options.as_json:
            _print(source, options, lambda frame: [json.dumps(frame)])
        elif options.once or options.count or not (sys.stdout.isatty() and sys.stdin.isatty()):
            _print(source, options, lambda frame: [*page(frame, ()).lines(), ""])
        else:
            from netobs.cli import top_screen

            top_screen.run(source, asked)


def _print(source: Frames, options: Options, lines: Any) -> None:
    """Prints whole frames: the first one has no rates."""
    left = 1 if options.once else options.count or (0 if options.as_json else 1)
    for frame in source.frames():
        if frame["interval_s"] is None:
            continue
        del frame["ok"]
        print("\n".join(lines(frame)), flush=True)
        left -= 1
        if not left:
            return


@contextlib.contextmanager
def _source(options: Options, asked: query.Query) -> Iterator[Frames]:
    if not options.alone:
        try:
            sock = control_client.connect(options.path)
        except NetobsError as error:
            if not (isinstance(error.__cause__, OSError) and error.__cause__.errno in _NOBODY):
                raise
            print(f"netobs: no daemon answers at {options.path}: measuring without it", file=sys.stderr)
        else:
            with sock:
                sock.sendall(control_client.request("top", **asked._asdict()))
                sock.settimeout(None)
                yield Frames(sock, f"the daemon at {options.path}")
            return
    with _by_itself(_capture_of(options.conf), asked) as frames:
        yield frames


def _capture_of(conf: Path) -> CaptureConfig:
    """[capture] of the configuration file; without a file, the defaults."""
    with contextlib.suppress(OSError):  # it may be there: ``load`` says why it cannot be read
        if not conf.exists():
            return CaptureConfig()
    return configuration.load(conf).capture


@contextlib.contextmanager
def _by_itself(config: CaptureConfig, asked: query.Query) -> Iterator[Frames]:
    """A process with its own programs, which end with the connection."""
    ours, theirs = socket.socketpair()
    with ours, tempfile.TemporaryFile() as said:
        with theirs:
            process = subprocess.Popen(
                child.command(ALONE, str(theirs.fileno())),
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.PIPE,
                stderr=said,
            )
        try:
            assert process.stdin is not None
            with process.stdin, contextlib.suppress(BrokenPipeError):
                process.stdin.write(pickle.dumps((config, asked._asdict())))
            yield Frames(ours, "netobs top", said)
        finally:
            ours.close()  # it detaches its programs then
            process.wait()
