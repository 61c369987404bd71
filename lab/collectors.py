"""Collectors that operators use, started in a namespace, each a context manager that is ready when it is entered."""

from __future__ import annotations

import json
import re
import socket
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from lab.namespaces import Lab, LabError, command, in_namespace, stop
from lab.programs import WAIT_S, Capture, Program, SocketState, bound_socket, wait_until

SINK_BUFFER_BYTES = 256 << 20  # the kernel accounts a small datagram with over 700 bytes
SO_RCVBUFFORCE = 33
EXPERT_NOTE = 0x400000  # tshark's severities: chat 0x200000 (a TCP FIN), note, warning, error


@dataclass(frozen=True)
class Summary:
    """Totals of nfcapd. ``sequence_errors``: as nfdump counts them; ``drops``: by the kernel before nfcapd."""

    flows: int
    packets: int
    octets: int
    sequence_errors: int
    drops: int


class Nfcapd(Program):
    """nfcapd (UDP: NetFlow v5, v9, IPFIX) and nfdump. Reading ends nfcapd, which writes its file when it ends."""

    def __init__(self, lab: Lab, ns: str, directory: Path, port: int = 4739, host: str = "127.0.0.1") -> None:
        super().__init__(lab, ns, directory, f"nfcapd-{port}")
        self.port, self.host = port, host
        self.files = self.directory / "files"
        self.drops = 0

    def _start(self) -> None:
        self.files.mkdir()
        argv = ["nfcapd", "-6" if ":" in self.host else "-4", "-b", self.host, "-p", str(self.port)]
        process = self._process = self._run([*argv, "-w", str(self.files), "-t", "3600", "-C", "none"])
        self._ready(process, lambda: self._bound(process, self.port, "udp"))

    def stop(self) -> None:
        """Let it read all that has arrived, then end it. Later calls do nothing."""
        process = self._process
        if process is None or process.poll() is not None:
            return
        wait_until(lambda: self._state().waiting_bytes == 0, "nfcapd reads its socket empty")
        self.drops = self._state().drops
        if stop(process) != 0:
            raise LabError(f"nfcapd ended with {process.returncode}: {self.log.strip()}")

    def flows(self) -> list[dict[str, Any]]:
        """One dict for each Data Record with a flow, with nfdump's names (``in_packets``, ``src4_addr`` …)."""
        self.stop()
        output = command(["nfdump", "-R", str(self.files), "-o", "json"]).stdout
        flows: list[dict[str, Any]] = [] if "No matching flows" in output else json.loads(output)
        return flows

    def summary(self) -> Summary:
        """The totals that nfcapd wrote into its files."""
        self.stop()
        totals = dict.fromkeys(("Flows", "Packets", "Bytes", "Sequence failures"), 0)
        for file in self.files.glob("nfcapd.2*"):
            for line in command(["nfdump", "-I", "-r", str(file)]).stdout.splitlines():
                key, _, value = line.partition(": ")
                if key in totals:
                    totals[key] += int(value)
        flows, packets, octets, sequence_errors = totals.values()
        return Summary(flows, packets, octets, sequence_errors, self.drops)

    def _state(self) -> SocketState:
        state = bound_socket(self.ns, self.port, "udp")
        if state is None:
            raise LabError(f"nfcapd closed its socket: {self.log.strip()}")
        return state


class Tshark(Capture):
    """The export stream as it passes ``interface``, captured by tcpdump and read by tshark's dissector.

    It only listens: the Messages need a receiver too (``UdpSink``, ``IpfixDump``, ``Nfcapd``). ``more`` are places
    beside the port, such as "tcp:4740", whose stream it reads too.
    """

    def __init__(
        self,
        lab: Lab,
        ns: str,
        directory: Path,
        port: int = 4739,
        transport: str = "udp",
        interface: str = "lo",
        more: Sequence[str] = (),
    ) -> None:
        self.transport, self.places = transport, [f"{transport}:{port}", *more]
        expression = " or ".join(place.replace(":", " port ") for place in self.places)
        super().__init__(lab, ns, directory, interface, expression, f"tshark-{port}")

    def messages(self) -> list[dict[str, Any]]:
        """The Messages in tshark's JSON (``cflow.version``, ``cflow.sequence`` …), repeated keys as lists."""
        return [message for _, message in self.received()]

    def received(self) -> list[tuple[int, dict[str, Any]]]:
        """The Messages with the port that each came to."""
        frames = json.loads(self._tshark("cflow", "-T", "json", "--no-duplicate-keys", "-J", "udp tcp cflow") or "[]")
        found = []
        for layers in (frame["_source"]["layers"] for frame in frames):
            transport = "udp" if "udp" in layers else "tcp"
            port = int(layers[transport][f"{transport}.dstport"])
            cflow = layers["cflow"]
            found += [(port, message) for message in (cflow if isinstance(cflow, list) else [cflow])]
        return found

    def experts(self) -> list[str]:
        """tshark's complaints about the Messages (sequence, templates, lengths), a line each."""
        columns = ("-T", "fields", "-e", "frame.number", "-e", "_ws.expert.message")
        return self._tshark(f"cflow && _ws.expert.severity >= {EXPERT_NOTE}", *columns).splitlines()

    def sizes(self) -> list[int]:
        """Length of each Message in bytes (NetFlow v5 and v9 have no length field: of each datagram)."""
        if self.transport == "udp":
            return [int(length) - 8 for length in self._tshark("cflow", "-T", "fields", "-e", "udp.length").split()]
        lengths = self._tshark("cflow", "-T", "fields", "-e", "cflow.len", "-E", "aggregator=/s")
        return [int(length) for length in lengths.split()]

    def sequences(self) -> list[list[int]]:
        """The Sequence Numbers of each TCP connection, in the order of the Messages."""
        found: dict[str, list[int]] = {}
        columns = ("-T", "fields", "-e", "tcp.stream", "-e", "cflow.sequence", "-E", "aggregator=/s")
        for line in self._tshark("cflow", *columns).splitlines():
            stream, _, numbers = line.partition("\t")
            found.setdefault(stream, []).extend(map(int, numbers.split()))
        return list(found.values())

    def _tshark(self, display_filter: str, *options: str) -> str:
        self.stop()
        decode = [word for place in self.places for word in ("-d", f"{place.replace(':', '.port==')},cflow")]
        return command(["tshark", "-r", str(self.pcap), "-n", *decode, "-Y", display_filter, *options]).stdout


class UdpSink:
    """A UDP socket in ``ns`` that keeps datagrams (up to 256 MB) until a test reads them."""

    def __init__(self, ns: str, port: int = 4739, host: str = "127.0.0.1") -> None:
        with in_namespace(ns):
            self.socket = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, SINK_BUFFER_BYTES)
        self.socket.bind((host, port))
        self.port: int = self.socket.getsockname()[1]

    def __enter__(self) -> UdpSink:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.socket.close()

    def receive(self, timeout: float = WAIT_S) -> bytes:
        """The next datagram; ``TimeoutError`` (``socket.timeout``) after ``timeout`` s without one."""
        self.socket.settimeout(timeout)
        return self.socket.recv(65536)

    def drain(self) -> list[bytes]:
        """All datagrams that are there now, without waiting."""
        return [data for data, _ in self.drain_from()]

    def drain_from(self) -> list[tuple[bytes, tuple[Any, ...]]]:
        """The same, each with the socket address that it came from."""
        self.socket.setblocking(False)
        return list(iter(self._next, None))

    def _next(self) -> tuple[bytes, tuple[Any, ...]] | None:
        try:
            return self.socket.recvfrom(65536)
        except BlockingIOError:
            return None


class IpfixDump(Program):
    """libfixbuf's strict reader behind a TCP listener that takes one connection. Reading waits for that to close.

    ``by_line``: each line is in ``output`` at once; slow, but a test can wait for one.
    """

    def __init__(
        self, lab: Lab, ns: str, directory: Path, port: int = 4739, host: str = "127.0.0.1", by_line: bool = False
    ) -> None:
        super().__init__(lab, ns, directory, f"ipfixdump-{port}")
        self.port, self.host = port, host
        self._argv = [*(["stdbuf", "-oL"] if by_line else []), "ipfixDump", "--rfc5610", "-i"]
        self.output = self.directory / "output"
        self._reader: subprocess.Popen[Any] | None = None

    def _listen(self) -> str:
        """The address as socat takes it."""
        family = "TCP6" if ":" in self.host else "TCP4"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{family}-LISTEN:{self.port},bind={host},reuseaddr"

    def _start(self) -> None:
        process = self._process = self._run(["socat", "-u", self._listen(), "-"], stdout=subprocess.PIPE)
        with self.output.open("wb") as output:
            self._reader = self._run([*self._argv, "-"], stdin=process.stdout, stdout=output)
        if process.stdout:
            process.stdout.close()
        self._ready(process, lambda: self._bound(process, self.port, "tcp"))

    def text(self) -> str:
        """All that ipfixDump printed, after the exporter closed its connection. Faults are not among it."""
        for process in (self._process, self._reader):
            if process:
                process.wait(WAIT_S)
        return self.output.read_text(encoding="utf-8", errors="replace")

    def faults(self) -> list[str]:
        """ipfixDump's complaints about the Messages (version, length, sequence, templates), a line each."""
        self.text()
        return [line for line in self.log.splitlines() if line.strip()]

    def records(self) -> list[dict[str, str]]:
        """The Data Records, Information Element name to printed value."""
        blocks = re.split(r"^--- ", self.text(), flags=re.MULTILINE)
        field = re.compile(r"^\s+\(\S+\)\s+(?:\(S\)\s+)?(\w+) : (.*)$", re.MULTILINE)
        return [dict(field.findall(block)) for block in blocks if block.startswith("data record")]

    def sequences(self) -> list[int]:
        """The Sequence Numbers of the Messages."""
        return [int(number) for number in re.findall(r"\ssequence number: (\d+) ", self.text())]

    def flows(self) -> list[dict[str, str]]:
        """The Data Records with flows: without options records."""
        return [record for record in self.records() if "packetDeltaCount" in record]

    def stats(self) -> tuple[int, int, int]:
        """How many Messages, Data Records and Template Records came."""
        found = re.search(r"File Stats: (\d+) Messages, (\d+) Data Records, (\d+) Template Records", self.text())
        if not found:
            raise LabError(f"ipfixDump printed no statistics: {self.log.strip()}")
        return int(found[1]), int(found[2]), int(found[3])

    def _end(self) -> None:
        super()._end()
        if self._reader:
            stop(self._reader)
