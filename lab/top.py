"""A client of the live table, and the screen of `netobs top` in a terminal of tmux."""

from __future__ import annotations

import shlex
import sys
import time
import uuid
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Callable

from lab.daemon import Daemon
from lab.namespaces import Lab, LabError, command
from lab.programs import WAIT_FACTOR, wait_until
from lab.traffic import REPOSITORY
from netobs.cli import control_client
from netobs.cli.top import Frames
from netobs.config.identity import control_socket

Frame = dict[str, Any]
WITHIN_S = 10.0 * WAIT_FACTOR


class TopClient:
    """Asks a daemon as `netobs top` does, and keeps each frame that it gets."""

    def __init__(self, daemon: Daemon, **asked: Any) -> None:
        """``asked``: as in netobs.live.query."""
        self._socket = control_client.connect(control_socket(daemon.conf), WITHIN_S)
        self._socket.sendall(control_client.request("top", **asked))
        self._frames = Frames(self._socket, daemon.label)
        self.frames: list[Frame] = []

    def __enter__(self) -> TopClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def ask(self, **given: Any) -> None:
        self._frames.ask(**given)

    def until(self, holds: Callable[[Frame], object]) -> Frame:
        """The first frame for which ``holds`` is true. ``LabError`` if it does not come. NetobsError at the end."""
        deadline = time.monotonic() + WITHIN_S
        while time.monotonic() < deadline:
            for frame in self._frames.read():
                self.frames.append(frame)
                if holds(frame):
                    return frame
        raise LabError(f"no such frame; the last one: {self.frames[-1:]}")


class Terminal:
    """`netobs ARGUMENTS` in ``ns``, in a terminal of its own: ``press`` keys, and see its ``screen``."""

    def __init__(self, lab: Lab, ns: str, arguments: Sequence[str], columns: int = 80, lines: int = 24) -> None:
        self._server = f"netobs-{uuid.uuid4().hex[:12]}"
        netobs = shlex.join(["ip", "netns", "exec", ns, sys.executable, "-m", "netobs", *arguments])
        shell = f"cd {shlex.quote(str(REPOSITORY))} && LC_ALL=C.UTF-8 {netobs}; echo exit status $?; exec cat"
        self._tmux("new-session", "-d", "-x", str(columns), "-y", str(lines), shell)

    def _tmux(self, *arguments: str) -> str:
        return command(["tmux", "-L", self._server, "-f", "/dev/null", *arguments]).stdout

    def __enter__(self) -> Terminal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._tmux("kill-server")

    def press(self, *keys: str) -> None:
        """Keys as tmux(1) names them."""
        self._tmux("send-keys", *keys)

    def resize(self, columns: int, lines: int) -> None:
        self._tmux("resize-window", "-x", str(columns), "-y", str(lines))

    @property
    def screen(self) -> str:
        return self._tmux("capture-pane", "-p")

    def until(self, *texts: str) -> str:
        """The screen that shows all ``texts``."""
        found: list[str] = []

        def shows() -> bool:
            found[:] = [self.screen]
            return all(text in found[0] for text in texts)

        try:
            wait_until(shows, f"the screen shows {texts}")
        except LabError as error:
            raise LabError(f"{error}; it shows:\n{found[0]}") from None
        return found[0]
