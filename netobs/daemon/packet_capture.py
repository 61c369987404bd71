"""The daemon's part of packet capture: starts another process (netobs.pcap.process), watches it, and restarts it.

Nothing of ``netobs.pcap`` is imported here. The other process may fail to start, hang, or die. The log reports it, and
metering is not affected.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import pickle
import signal
import socket
from collections.abc import Iterator
from typing import Any, Callable

from netobs.base import child
from netobs.base.clock import NS_PER_S
from netobs.base.loop import POLL_NS, EventLoop, Timer
from netobs.config import Config
from netobs.config.packet_capture import Settings, effective
from netobs.config.text import one_line, quoted

log = logging.getLogger("netobs")

MIB = 1 << 20
MODULE = "netobs.pcap.process"
FIRST_PAUSE_NS, LONGEST_PAUSE_NS = NS_PER_S, 60 * NS_PER_S
"""How long it waits before it starts the process again: twice as long each time."""
PROVEN_NS = 60 * NS_PER_S
"""A process that listened for this long is restarted after the first pause."""
STOP_NS = 4 * NS_PER_S
"""How long the process may take to end its streams: they have 2 s of it."""
CHECK_S = 30
_MESSAGE_BYTES = 1 << 20


def problems(config: Config, kernel: bool = False) -> Iterator[tuple[str, bool]]:
    """Problems of packet capture (filter, certificates, address, with ``kernel`` its programs), and whether each may
    resolve by itself. Another process checks; this one waits for it, up to CHECK_S."""
    if not config.packet_capture.enabled:
        return
    import subprocess

    argv = child.command(MODULE, "check", *(["kernel"] if kernel else []))
    settings = pickle.dumps(_wanted(config))
    try:
        done = subprocess.run(argv, input=settings, stdout=subprocess.PIPE, timeout=CHECK_S, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        yield f"packet capture cannot be checked: {one_line(str(error))}", True
        return
    for line in done.stdout.split(b"\n"):
        if line:
            text, may_pass = json.loads(line)
            yield text, may_pass


def plan(config: Config) -> tuple[list[str], list[str], list[str]]:
    """For --dry-run: the plan, the warnings, and the problems. Nothing is attached."""
    if not config.packet_capture.enabled:
        return [], [], []
    settings = _wanted(config).config
    lines = [
        f"packet capture: {settings.listen}, {settings.format}, filter {' or '.join(map(quoted, settings.filter))}",
        f"  interfaces {', '.join(settings.interfaces)}, {settings.direction}",
        f"  while there is a client: {settings.buffer_bytes // MIB or 1} MiB of kernel memory for each CPU, and up to "
        f"{settings.queue_max_bytes * settings.max_clients // MIB} MiB of process memory",
    ]
    if settings.recorder_ns:
        kept_s, most = settings.recorder_ns / NS_PER_S, settings.recorder_max_bytes // MIB
        lines.append(f"  recorder: the last {kept_s:g} s, at most {most} MiB of process memory")
    return lines, [], [problem for problem, _ in problems(config, kernel=True)]


class PacketCapturing:
    """``start`` -> the loop runs, perhaps ``apply`` -> ``stop``, until ``closed`` -> ``close``."""

    def __init__(self, config: Config, loop: EventLoop) -> None:
        self._loop = loop
        self._wanted = _wanted(config)
        self._present: _Process | None = None
        self._leaving: list[_Process] = []
        self._again: Timer | None = None
        self._pause_ns = FIRST_PAUSE_NS
        self._heard = False
        self.problem = ""
        """Why the last process has ended, or did not start."""
        self.state: dict[str, Any] | None = None
        """Clients and counts when it was last asked; see ``PacketServer.state``. None: nobody has said yet."""
        self._awaiting: Callable[[int], None] = lambda now_ns: None

    def start(self, now_ns: int) -> None:
        """Starts the process, if packet capture is enabled. What keeps it from its work comes later, in the log."""
        self._again = None
        if not self._wanted.config.enabled:
            return
        try:
            self._present = _Process(self._wanted, self._loop, self._on_word, self._on_end, now_ns)
        except OSError as error:
            self._try_again(f"its process cannot be started: {error.strerror}", now_ns)

    @property
    def settled(self) -> bool:
        """Whether it is known how packet capture fares."""
        return self._heard or not self._wanted.config.enabled

    @property
    def listening_ns(self) -> int:
        """Since when clients are served (CLOCK_MONOTONIC); 0: they are not."""
        return self._present.listened_ns if self._present is not None else 0

    def ask_state(self, then: Callable[[int], None]) -> bool:
        """Asks for ``state``, and calls ``then`` when it is there, if it comes. Whether there is a process to ask."""
        self._awaiting = then
        if self._present is None:
            self.state = None
            return False
        self._present.tell(do="state")
        return True

    def apply(self, config: Config, now_ns: int) -> None:
        """Switches to another configuration: if keys changed, streams end, and clients connect again."""
        before, self._wanted = self._wanted, _wanted(config)
        if self._wanted.level != before.level and self._present is not None:
            self._present.tell(do="log", level=self._wanted.level)
        same = self._wanted[:2] == before[:2] or not (self._wanted.config.enabled or before.config.enabled)
        if same and self._again is None:
            return
        self._forget_pause()
        self._pause_ns = FIRST_PAUSE_NS
        self._dismiss(now_ns)
        self._replace(now_ns)

    def stop(self, now_ns: int) -> None:
        """Ends all streams, each as it should end."""
        self._wanted = self._wanted._replace(config=type(self._wanted.config)())  # it is off
        self._forget_pause()
        self._dismiss(now_ns)

    def _replace(self, now_ns: int) -> None:
        """Starts the next process, as soon as no other one listens."""
        if self._present is None and self._again is None and all(process.left for process in self._leaving):
            self.start(now_ns)

    def _forget_pause(self) -> None:
        if self._again is not None:
            self._again.cancel()
            self._again = None

    def _dismiss(self, now_ns: int) -> None:
        if self._present is not None:
            self._present.stop(now_ns)
            self._leaving.append(self._present)
            self._present = None

    @property
    def closed(self) -> bool:
        """After ``stop``: there is no process."""
        return not self._leaving

    def report(self, level: int) -> None:
        """Asks for the account of the packets, which goes to the log with ``level``."""
        for process in (self._present, *self._leaving):
            if process is not None:
                process.tell(do="account", level=level)

    def close(self) -> None:
        """Ends all, at once."""
        for process in (self._present, *self._leaving):
            if process is not None:
                process.kill()

    def _on_word(self, process: _Process, now_ns: int) -> None:
        self._heard = True
        if process.state is not None and process is self._present:
            self.state, process.state = process.state, None
            self._awaiting(now_ns)
        if process in self._leaving:
            self._replace(now_ns)

    def _on_end(self, process: _Process, why: str, now_ns: int) -> None:
        if process in self._leaving:
            self._leaving.remove(process)
            self._replace(now_ns)
            return
        self._present = self.state = None
        self._awaiting(now_ns)
        if process.listened_ns and now_ns - process.listened_ns >= PROVEN_NS:
            self._pause_ns = FIRST_PAUSE_NS
        self._try_again(why, now_ns)

    def _try_again(self, why: str, now_ns: int) -> None:
        self._heard, self.problem = True, why
        pause_s = self._pause_ns // NS_PER_S
        log.error("packet capture: %s; flows are measured without it, and it is tried again in %d s", why, pause_s)
        self._again = self._loop.call_at(now_ns + self._pause_ns, self.start)
        self._pause_ns = min(2 * self._pause_ns, LONGEST_PAUSE_NS)


class _Process:
    """One process, from its start to its end. Raises OSError if there can be none."""

    def __init__(
        self,
        settings: Settings,
        loop: EventLoop,
        on_word: Callable[[_Process, int], None],
        on_end: Callable[[_Process, str, int], None],
        now_ns: int,
    ) -> None:
        import subprocess

        self.listened_ns = 0
        """Since when it serves clients; 0: it does not."""
        self.left = False
        """It listens no more."""
        self.state: dict[str, Any] | None = None
        """What it has said, and nobody has heard yet."""
        self._loop = loop
        self._on_word, self._on_end = on_word, on_end
        self._problem = ""
        self._killing: Timer | None = None
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with contextlib.ExitStack() as undo:
            undo.callback(ours.close)
            with theirs:
                # Not NOTIFY_SOCKET: whether the service is alive is for the daemon to say.
                environment = {name: value for name, value in os.environ.items() if name != "NOTIFY_SOCKET"}
                argv, fd = child.command(MODULE, str(theirs.fileno())), theirs.fileno()
                self._process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, pass_fds=(fd,), env=environment)
            ours.setblocking(False)
            ours.send(pickle.dumps(settings))
            undo.pop_all()
        self._channel = ours
        loop.add_reader(ours.fileno(), self._on_readable)

    def tell(self, **command: object) -> None:
        """A process that does not listen to commands is not waited for."""
        with contextlib.suppress(OSError):
            self._channel.send(json.dumps(command).encode())

    def stop(self, now_ns: int) -> None:
        """Has it end its streams, and itself; its time is limited."""
        self.tell(do="stop")
        self._killing = self._loop.call_at(now_ns + STOP_NS, lambda _now_ns: self._process.kill())

    def kill(self) -> None:
        """Ends it now."""
        self._loop.remove(self._channel.fileno())
        self._channel.close()
        self._process.kill()
        self._process.wait()

    def _on_readable(self, now_ns: int) -> None:
        try:
            data = self._channel.recv(_MESSAGE_BYTES)
        except (BlockingIOError, ConnectionResetError):
            return  # it ended, with commands unread: what it has said comes next, and then the end
        if not data:
            self._loop.remove(self._channel.fileno())
            self._reap(now_ns)
            return
        try:
            self._take(json.loads(data), now_ns)
        except (ValueError, TypeError, KeyError, AttributeError):
            self._problem = "its process does not keep to what was agreed, and is ended"
            self._process.kill()

    def _take(self, message: dict[str, Any], now_ns: int) -> None:
        """A message, which is believed as little as any other input."""
        for line in message.get("account", ()):
            log.log(int(message["level"]), "%s", line)
        if "problem" in message:
            self._problem = str(message["problem"])
        self.left = self.left or "left" in message
        if "listening" in message:
            self.listened_ns = now_ns
        if "state" in message:
            said = message["state"]
            lost = {str(reason): int(packets) for reason, packets in said["lost"].items()}
            self.state = {"clients": int(said["clients"]), "sent_packets": int(said["sent"]), "lost": lost}
        if "account" not in message:
            self._on_word(self, now_ns)

    def _reap(self, now_ns: int) -> None:
        """The channel is closed before the process has detached all: it is not waited for in one piece."""
        status = self._process.poll()
        if status is None:
            self._loop.call_at(now_ns + POLL_NS, self._reap)
            return
        self._channel.close()
        if self._killing is not None:
            self._killing.cancel()
        self._on_end(self, self._problem or _cause(status), now_ns)


def _cause(status: int) -> str:
    if status >= 0:
        return f"its process ended with status {status}; the lines above say why"
    with contextlib.suppress(ValueError):
        return f"its process was ended by {signal.Signals(-status).name}"
    return f"its process was ended by signal {-status}"


def _wanted(config: Config) -> Settings:
    return Settings(effective(config.packet_capture, config.capture), config.capture.attach, config.log.level)
