"""The control socket: what the commands of an operator ask, a JSON object a line, and the answers, a line each.

    {"netobs": 1, "do": "status"}       {"netobs": 1, "ok": true, "status": {...}}
    {"netobs": 1, "do": "reload"}       {"netobs": 1, "ok": false, "error": "what, where, what to do"}

Only ``reload`` changes anything. Whoever may connect may ask for everything: root, the user of the daemon, and members
of the group netobs, by the mode of the socket. netobs.config.identity has its path.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import socket
import struct
from typing import TYPE_CHECKING, Any, Callable, TypeVar

from netobs.base import background, clock
from netobs.base.errors import NetobsError
from netobs.base.serving import Connection, Limits, Server, Service
from netobs.config.identity import control_socket
from netobs.kernel.listening import unix_socket

if TYPE_CHECKING:
    from netobs.daemon.daemon import Daemon
    from netobs.daemon.live import Live
    from netobs.daemon.reload import Outcome
    from netobs.daemon.state import Snapshot
    from netobs.daemon.survey import Survey

log = logging.getLogger("netobs")

VERSION = 1
"""The key "netobs" of each request and answer. It changes when a client could misunderstand the rest."""
LIMITS = Limits(connections=16, request_bytes=4096, answer_bytes=32 << 20)
NAME = "control socket"
_HEAD = f'{{"netobs":{VERSION},"ok":true,"status":'
_CREDENTIALS = struct.Struct("=iII")  # struct ucred


def encoded(**fields: object) -> bytes:
    """An answer as it is sent."""
    return json.dumps({"netobs": VERSION, **fields}, separators=(",", ":")).encode() + b"\n"


def refusal(error: str) -> bytes:
    """The answer to a request that gets nothing else."""
    return encoded(ok=False, error=error)


class Request:
    """What a client asks, to be answered once: ``answer``, ``refuse``, or ``hand_over`` of its ``connection``."""

    def __init__(self, asked: dict[str, Any], connection: Connection) -> None:
        self.asked, self.connection = asked, connection

    @property
    def client(self) -> str:
        """Who asks, for the log."""
        with contextlib.suppress(OSError):
            data = self.connection.socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
            pid, uid, _ = _CREDENTIALS.unpack(data)
            return f"uid {uid}, pid {pid}"
        return "somebody who has gone"

    def answer(self, now_ns: int, **fields: object) -> None:
        """Sends ``fields``."""
        self.send(encoded(ok=True, **fields), now_ns)

    def send(self, data: bytes, now_ns: int) -> None:
        """Sends what ``encoded`` has made."""
        if len(data) > LIMITS.answer_bytes:
            data = refusal(f"the answer has {len(data)} bytes, which is too much; use the metrics")
        self.connection.answer(data, now_ns)

    def refuse(self, error: str, now_ns: int) -> None:
        """Sends why there is no other answer."""
        self.connection.answer(refusal(error), now_ns)


Rendered = TypeVar("Rendered")
Verb = Callable[[Request, int], None]
"""Answers a request, now or later; gets ``now_ns``."""


class Control:
    """``open`` -> serves from the loop -> ``close``. ``verbs`` may get more entries before ``open``."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self.verbs: dict[str, Verb] = {"status": self._status, "reload": self._reload, "top": self._top}
        self.path = control_socket(daemon.config.path)
        self._server: Server | None = None
        self._inode = 0
        self._survey: Survey | None = None
        self._live: Live | None = None
        self._asking: list[Request] = []  # for the status
        self.in_turn = background.InTurn(daemon.loop, "document")
        self._reloads: list[tuple[int, Request]] = []  # the number of the reload that each waits for

    def open(self) -> None:
        """Listens. Without a socket the daemon goes on: the log says why there is none."""
        try:
            sock = unix_socket(self.path)
            self._inode = os.lstat(self.path).st_ino
        except OSError as error:
            log.warning("%s %s: %s; netobs status does not reach this daemon", NAME, self.path, _reason(error))
            return
        busy = refusal(f"{NAME}: {LIMITS.connections} clients are connected, which is the most; try again")
        too_long = refusal(f"{NAME}: a request has {LIMITS.request_bytes} bytes at most, and ends with a newline")
        service = Service(NAME, lambda data: data.find(b"\n") + 1, self._answer, busy, too_long)
        self._server = Server(self._daemon.loop, [sock], service, LIMITS)

    def close(self) -> None:
        """Ends all connections, and removes the socket, unless another process has put its own there."""
        if self._live is not None:
            self._live.close()
        if self._server is None:
            return
        for _, request in self._reloads:
            request.refuse("the daemon is stopping", 0)
        with contextlib.suppress(OSError):
            if os.lstat(self.path).st_ino == self._inode:
                os.unlink(self.path)
        self._server.close()
        self._server = None

    def _answer(self, connection: Connection, line: bytes, now_ns: int) -> None:
        try:
            asked = json.loads(line)
        except (ValueError, RecursionError):
            asked = None
        if not isinstance(asked, dict) or asked.get("netobs") != VERSION:
            said = refusal(f'{NAME}: expected an object like {{"netobs": {VERSION}, "do": "status"}}, in one line')
            connection.answer(said, now_ns, close=True)
            return
        request, do = Request(asked, connection), asked.get("do")
        verb = self.verbs.get(do) if isinstance(do, str) else None
        if verb is None:
            request.refuse(f'{NAME}: "do" is one of {", ".join(sorted(self.verbs))}', now_ns)
        else:
            verb(request, now_ns)

    # The verbs.

    def _status(self, request: Request, now_ns: int) -> None:
        self._asking.append(request)
        if len(self._asking) == 1 and self._survey is None:
            background.run(self._daemon.loop, "import", _import, lambda _result, later_ns: self._look(later_ns))
        elif len(self._asking) == 1:
            self._look(now_ns)

    def _look(self, now_ns: int) -> None:
        refresh = self._daemon.reconciliation.refresh
        self.survey.refresh(lambda later_ns: refresh(self._tell_status, later_ns), now_ns)

    def _tell_status(self, now_ns: int) -> None:
        """All who have asked so far get the same answer."""
        from netobs.daemon import state

        asking: list[Request] = []

        def prepare(_now_ns: int) -> Callable[[], bytes]:
            asking[:], self._asking = self._asking, []
            return self.with_document(lambda tree: "".join([_HEAD, *state.encoded(tree), "}\n"]).encode())

        def tell(made: bytes | NetobsError, later_ns: int) -> None:
            for request in asking:
                request.send(made if isinstance(made, bytes) else refusal(str(made)), later_ns)

        self.in_turn.run(prepare, tell, now_ns)

    def _top(self, request: Request, now_ns: int) -> None:
        """The connection belongs to the live table from now on."""
        if self._live is None:
            from netobs.daemon.live import Live

            self._live = Live(self._daemon)
        self._live.add(request, now_ns)

    @property
    def survey(self) -> Survey:
        """What is found out beside the loop."""
        if self._survey is None:
            from netobs.daemon.survey import Survey

            self._survey = Survey(self._daemon)
        return self._survey

    def with_document(self, render: Callable[[dict[str, Any]], Rendered]) -> Callable[[], Rendered]:
        """What ``render`` makes of the state document (netobs.daemon.state) of now: work for a thread, by ``in_turn``,
        as the document is large on a large host."""
        from netobs.daemon import state

        return self.with_snapshot(lambda taken: render(state.document(taken)))

    def with_snapshot(self, render: Callable[[Snapshot], Rendered]) -> Callable[[], Rendered]:
        """The same, of what the document is made of."""
        from netobs.daemon import state

        pair = clock.read_pair()
        self._daemon.see_losses(pair)
        taken = state.snapshot(self._daemon, self.survey.found, pair)
        return contained(lambda: render(taken))

    def _reload(self, request: Request, now_ns: int) -> None:
        if self._daemon.is_stopping:
            request.refuse("the daemon is stopping", now_ns)
            return
        before = self._daemon.reloading.number
        self._daemon.reload(now_ns)
        begun = self._daemon.reloading.number
        if begun > before:  # else it waits for the present one: many who ask fill no log
            log.info("reload: asked for by %s", request.client)
        self._reloads.append((begun if begun > before else before + 1, request))

    def reload_ended(self, outcome: Outcome, now_ns: int) -> None:
        """Answers those who have asked for this reload."""
        waiting, self._reloads = self._reloads, []
        for number, request in waiting:
            if number > outcome.number:
                self._reloads.append((number, request))
            elif outcome.error:
                request.refuse(outcome.error, now_ns)
            else:
                waits = [*self._daemon.reloading.waits]
                request.answer(now_ns, reload={"warnings": [*outcome.warnings], "waits": waits})


def contained(work: Callable[[], Rendered]) -> Callable[[], Rendered]:
    """``work``, whose unexpected errors go to the log, and to whoever has asked: nobody ends metering by a question."""

    def guarded() -> Rendered:
        try:
            return work()
        except NetobsError:
            raise
        except Exception as error:
            log.exception("the state of the daemon cannot be told")
            raise NetobsError("the state cannot be told: an unexpected error", "see the daemon's log") from error

    return guarded


def _import() -> None:
    """What only those who ask need: the loop does not wait until the disk has it."""
    from netobs.daemon import state, survey  # noqa: F401


def _reason(error: OSError) -> str:
    return "another netobs listens there" if error.errno == errno.EADDRINUSE else error.strerror or str(error)
