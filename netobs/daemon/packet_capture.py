"""The daemon's part of packet capture: starts another process (netobs.pcap.process), watches it, and restarts it.

Nothing of ``netobs.pcap`` is imported here. The other process may fail to start, hang, or die. The log reports it, and
metering is not affected.
"""

from __future__ import annotations

import json
import logging
import pickle
from collections.abc import Iterator
from typing import Any, Callable

from netobs.base import child
from netobs.base.clock import NS_PER_S
from netobs.base.loop import EventLoop, Timer
from netobs.config import Config
from netobs.config.packet_capture import Settings, effective
from netobs.config.text import one_line, quoted
from netobs.daemon.child_process import ChildProcess

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

    def ask_state(self, then: Callable[[int], None] | None = None) -> bool:
        """Asks for ``state``, and calls ``then``, or whom an earlier call named, when it is there, if it comes. Whether
        there is a process to ask."""
        self._awaiting = then or self._awaiting
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


class _Process(ChildProcess):
    """One process, from its start to its end. Raises OSError if there can be none."""

    def __init__(
        self,
        settings: Settings,
        loop: EventLoop,
        on_word: Callable[[_Process, int], None],
        on_end: Callable[[_Process, str, int], None],
        now_ns: int,
    ) -> None:
        self.listened_ns = 0
        """Since when it serves clients; 0: it does not."""
        self.left = False
        """It listens no more."""
        self.state: dict[str, Any] | None = None
        """What it has said, and nobody has heard yet."""
        self._on_word = on_word
        self._problem = ""
        super().__init__(MODULE, loop, self._take, lambda why, at_ns: on_end(self, self._problem or why, at_ns))
        try:
            self.channel.send(pickle.dumps(settings))
        except OSError:
            self.kill()
            raise

    def stop(self, now_ns: int) -> None:
        """Has it end its streams, and itself; its time is limited."""
        self.tell(do="stop")
        self.end_within(STOP_NS, now_ns)

    def _take(self, message: dict[str, Any], now_ns: int) -> None:
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


def _wanted(config: Config) -> Settings:
    return Settings(effective(config.packet_capture, config.capture), config.capture.attach, config.log.level)
