"""``netobs capture``: packets to a file or standard output, from the running daemon or with its own programs."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType

from netobs import config as configuration
from netobs.base import clock
from netobs.base.errors import CaptureError, NetobsError
from netobs.config import CaptureConfig, Endpoint, PacketCaptureConfig
from netobs.config.packet_capture import effective
from netobs.config.selector import is_name
from netobs.config.text import quoted
from netobs.pcap.cli import remote
from netobs.pcap.cli.stream_reader import StreamReader

COUNTER_NS = clock.NS_PER_S // 4
"""The interval at which the counter on a terminal moves."""
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
DURATION_SLACK_NS = clock.NS_PER_S
"""The daemon has begun to count a duration before its stream arrives here."""


@dataclass(frozen=True)
class Options:
    """The command's options. Empty, 0 or None: not given."""

    conf: Path
    filter: str = ""
    interface: str = ""
    write: str = "-"
    format: str = ""
    duration_ns: int = 0
    count: int = 0
    snaplen: int = 0
    recorded: bool = False
    alone: bool = False
    connect: Endpoint | None = None
    tls: bool = False
    ca: str = ""
    cert: str = ""
    key: str = ""

    @property
    def stream_format(self) -> str:
        """pcapng, which holds more, unless the file is named .pcap or .cap."""
        is_classic = Path(self.write).suffix in (".pcap", ".cap")
        return self.format or ("pcap" if is_classic else "pcapng")

    def request(self) -> dict[str, object]:
        """The request line for a daemon (netobs.pcap.server.request)."""
        if self.recorded:
            return {"recorded": True, "format": self.stream_format}
        given = {
            "snaplen": self.snaplen,
            "interface": self.interface,
            "count": self.count,
            "duration": f"{self.duration_ns // 1_000_000}ms" if self.duration_ns else "",
        }
        return {
            "filter": self.filter,
            "format": self.stream_format,
            **{name: value for name, value in given.items() if value},
        }


class Stop:
    """Ends the capture between two records. A second signal ends it anywhere, even if nobody reads from its pipe.
    Until ``arm``, the first signal ends the program at once (netobs.__main__): nothing is attached or written yet."""

    def __init__(self) -> None:
        self._requested = False

    def arm(self) -> None:
        """From now on, a signal ends the capture in an orderly way."""
        for signum in SIGNALS:
            if signum != signal.SIGHUP or signal.getsignal(signum) is not signal.SIG_IGN:  # as nohup wants it
                signal.signal(signum, self._on_signal)

    def _on_signal(self, signum: int, _frame: FrameType | None) -> None:
        if not self._requested:
            self._requested = True
        elif signum != signal.SIGHUP:  # when a terminal is gone, its shell and the kernel both say so
            for each in SIGNALS:
                signal.signal(each, signal.SIG_IGN)  # let it detach its programs
            raise SystemExit(128 + signum)

    def __call__(self) -> bool:
        return self._requested


class Counter:
    """Reports the number of packets: at the end, and on a terminal also while it runs."""

    def __init__(self, target: str, start_ns: int) -> None:
        self._target = target
        self._start_ns = self._shown_ns = start_ns
        self._live = sys.stderr.isatty()

    def show(self, reader: StreamReader, now_ns: int) -> None:
        """Writes over the line that was there."""
        if self._live and now_ns - self._shown_ns >= COUNTER_NS:
            self._shown_ns = now_ns
            seconds = (now_ns - self._start_ns) // clock.NS_PER_S
            _say(f"\r{_summary(reader)}, {seconds} s \x1b[K", end="")

    def is_all_of(self, options: Options, reader: StreamReader) -> bool:
        """Whether the count or the duration is reached."""
        lasted_ns = clock.monotonic_ns() - self._start_ns
        is_over = options.duration_ns and lasted_ns >= options.duration_ns - DURATION_SLACK_NS
        return bool(is_over or (options.count and reader.packets >= options.count))

    def finish(self, reader: StreamReader) -> None:
        """Prints the last line."""
        _say(f"{chr(13) if self._live else ''}{_summary(reader)} written to {self._target}")


def _say(text: str, end: str = "\n") -> None:
    """Prints on standard error. A closed terminal does not disturb the end of the capture."""
    try:
        print(text, end=end, file=sys.stderr, flush=True)
    except OSError:
        # The interpreter writes the rest of the buffer when it ends; a failure then would change our exit status.
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), sys.stderr.fileno())


def _summary(reader: StreamReader) -> str:
    lost = "" if reader.lost is None else f", {reader.lost} lost"
    return f"{reader.packets} packets{lost}, {reader.bytes} bytes"


def run(options: Options) -> None:
    """Captures until the count, the duration, SIGINT, SIGTERM or SIGHUP.

    :raises NetobsError: it cannot, or the daemon refuses.
    """
    if options.write == "-" and sys.stdout.isatty():
        raise NetobsError("packets are not text for a terminal", "use --write FILE, or a pipe into tshark -r -")
    stop = Stop()
    pieces = _pieces(options, stop)
    reader = StreamReader()
    first = _first(pieces, reader)
    stop.arm()
    target = "standard output" if options.write == "-" else options.write
    counter = Counter(target, clock.monotonic_ns())
    is_at_end = False
    # A broken pipe: the reader has ended.
    with contextlib.closing(pieces), _output(options.write) as fd, contextlib.suppress(BrokenPipeError):
        _write(fd, first)
        for piece in pieces:
            _write(fd, reader.feed(piece))
            counter.show(reader, clock.monotonic_ns())
        is_at_end = True
    counter.finish(reader)
    if is_at_end and not (stop() or options.recorded or counter.is_all_of(options, reader)):
        _say("netobs: the daemon ended the stream early; its log has the reason")
    if not reader.is_whole:
        raise CaptureError("the stream broke off within a packet", "the daemon's log has the reason")


def _first(pieces: Iterator[bytes], reader: StreamReader) -> bytes:
    """The start of the stream. A refusal must not leave an empty file, or truncate a former capture."""
    for piece in pieces:
        if whole := reader.feed(piece):
            return whole
    raise CaptureError("the daemon closed the connection without a packet", "its log has the reason")


def _pieces(options: Options, stop: Stop) -> Generator[bytes, None, None]:
    """The stream of the daemon, or of our own programs."""
    settings, capture = _settings(options)
    endpoint = options.connect or settings.listen
    if options.connect or (not options.alone and (settings.enabled or options.recorded)):
        sock = remote.connect(endpoint)
        if sock is not None:
            tls = _tls(options, settings)
            sock = remote.encrypt(sock, tls, endpoint) if tls else sock
            return remote.receive(sock, options.request(), endpoint, stop)
        if options.connect or options.recorded:
            raise CaptureError(f"{endpoint}: nobody listens there", "is netobs running, with [packet_capture] enabled?")
        _say(f"netobs: nobody listens at {endpoint}: capturing without the daemon")
    from netobs.pcap.cli import local
    from netobs.pcap.filters.apart import compile_apart

    alone = _by_itself(options, settings, capture)
    chosen = compile_apart(alone.filter)
    stop.arm()
    return local.capture(alone, chosen, capture.attach, options.count, options.duration_ns, stop)


def _by_itself(options: Options, settings: PacketCaptureConfig, capture: CaptureConfig) -> PacketCaptureConfig:
    """Serves the request with our own programs, like a daemon would."""
    if options.interface:
        if not is_name(options.interface):
            raise NetobsError(f"--interface {quoted(options.interface)} is not an interface name", "give one name")
        settings = replace(settings, interfaces=(options.interface,), exclude=())
    return replace(
        effective(settings, capture),
        filter=(options.filter,),
        snaplen=options.snaplen or settings.snaplen,
        format=options.stream_format,
    )


def _tls(options: Options, settings: PacketCaptureConfig) -> remote.Tls | None:
    """The certificate of the daemon on this host is known from its configuration, and is trusted as it is."""
    if options.connect:
        wanted = options.tls or options.ca or options.cert
        return remote.Tls(options.ca, options.cert, options.key) if wanted else None
    if not settings.cert or settings.listen.is_path:
        return None
    return remote.Tls(options.ca or settings.cert, options.cert, options.key, pinned=not options.ca)


def _settings(options: Options) -> tuple[PacketCaptureConfig, CaptureConfig]:
    """[packet_capture] of the configuration file; without a file, the defaults."""
    try:
        options.conf.stat()
    except FileNotFoundError:
        return PacketCaptureConfig(), CaptureConfig()
    except OSError:
        pass  # it may be there: ``load`` says why it cannot be read
    config = configuration.load(options.conf)
    return config.packet_capture, config.capture


@contextlib.contextmanager
def _output(path: str) -> Iterator[int]:
    """A descriptor to write to. Only the owner may read the file, because packets are confidential."""
    if path == "-":
        yield sys.stdout.fileno()
        return
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise NetobsError(f"{path}: cannot be written: {error.strerror}") from error
    try:
        yield fd
    finally:
        os.close(fd)


def _write(fd: int, data: bytes) -> None:
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]
    except BrokenPipeError:
        raise
    except OSError as error:
        raise NetobsError(f"cannot write: {error.strerror}", "the part written before is readable") from error
