"""Collectors over TCP or TLS that write down what they read, and the sums of what is in Messages that were received."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lab.namespaces import Lab
from lab.programs import Program
from lab.traffic import REPOSITORY
from netobs.collector.decode import Decoded, Decoder
from netobs.encode.template import file as template_file
from netobs.flow.records import Records

HEADER_BYTES, FIXED_BYTES = 16, 20
"""Of a Message, and of a Message with its first Set."""
FLOW_KEY = (
    "sourceIPv4Address", "destinationIPv4Address", "sourceTransportPort", "destinationTransportPort",
    "protocolIdentifier", "ingressInterface", "egressInterface",
)  # fmt: skip


class Collector(Program):
    """lab/recorder.py at ``port``. What all that share ``files`` have read is in there, each connection a file."""

    def __init__(
        self, lab: Lab, ns: str, directory: Path, files: Path, label: str, *more: object, port: int = 4739
    ) -> None:
        super().__init__(lab, ns, directory, label)
        files.mkdir(exist_ok=True)
        self._port = port
        self._argv = [sys.executable, str(REPOSITORY / "lab/recorder.py"), str(port), str(files)]
        self._argv += [str(argument) for argument in more]

    def _start(self) -> None:
        process = self._process = self._run(self._argv)
        self._ready(process, lambda: self._bound(process, self._port, "tcp"))

    def signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)
        if number != signal.SIGSTOP:
            self._process.wait(20)


def split(data: bytes) -> Iterator[bytes]:
    """The whole Messages in a stream of IPFIX."""
    at = 0
    while at + HEADER_BYTES <= len(data):
        stop = at + int.from_bytes(data[at + 2 : at + 4], "big")
        if stop > len(data):
            return
        yield data[at:stop]
        at = stop


@dataclass
class Received:
    """What a collector has of the IPv4 flows of the template ``default``, added up by Flow Key.

    ``gaps``: Data Records that no Message brought although a later one came. ``doubles``: Messages that came before
    with the same Sequence Number; their records do not count.
    """

    flows: dict[bytes, tuple[int, int]] = field(default_factory=dict)
    records: int = 0
    messages: int = 0
    gaps: int = 0
    doubles: int = 0
    sessions: int = 0

    @property
    def packets(self) -> int:
        return sum(packets for packets, _ in self.flows.values())

    @property
    def octets(self) -> int:
        return sum(octets for _, octets in self.flows.values())

    def add_session(self, messages: Iterable[bytes]) -> None:
        """The Messages of one Transport Session, in their order. Those with templates and options go through the
        decoder of ``netobs listen``, those with flows, of which there may be very many, are read as arrays."""
        self.sessions += 1
        template, _ = template_file.load("default")
        decoder, expected, parts = Decoder(), 0, []
        for message in messages:
            self.messages += 1
            sequence, set_id = int.from_bytes(message[8:12], "big"), int.from_bytes(message[16:18], "big")
            flows = message[FIXED_BYTES:] if set_id == template.id else b""
            rows = len(flows) // template.dtype.itemsize or _records(decoder.decode(message))
            if rows and sequence < expected:
                self.doubles += 1
                continue
            self.gaps += max(0, sequence - expected)
            expected = max(expected, sequence) + rows
            parts.append(flows)
        self._add(np.frombuffer(b"".join(parts), dtype=template.dtype))

    def _add(self, rows: npt.NDArray[np.void]) -> None:
        self.records += len(rows)
        if not len(rows):
            return
        names = [np.ascontiguousarray(rows[name]).view(np.uint8).reshape(len(rows), -1) for name in FLOW_KEY]
        keys = np.concatenate(names, 1)
        for key, packets, octets in zip(keys, rows["packetDeltaCount"].tolist(), rows["octetDeltaCount"].tolist()):
            before = self.flows.get(key.tobytes(), (0, 0))
            self.flows[key.tobytes()] = (before[0] + packets, before[1] + octets)


def _records(decoded: Decoded) -> int:
    return len(decoded.flows) + len(decoded.options)


def expected(rows: Records) -> dict[bytes, tuple[int, int]]:
    """What ``Received.flows`` must be for ``rows`` of IPv4 (as ``Traffic.expected`` gives them)."""
    columns = [
        rows["src_addr"][:, 12:], rows["dst_addr"][:, 12:], rows["src_port"].astype(">u2"),
        rows["dst_port"].astype(">u2"), rows["protocol"],
        np.where(rows["direction"] == 0, rows["ifindex"], 0).astype(">u4"),
        np.where(rows["direction"] == 1, rows["ifindex"], 0).astype(">u4"),
    ]  # fmt: skip
    keys = np.concatenate([np.ascontiguousarray(each).view(np.uint8).reshape(len(rows), -1) for each in columns], 1)
    counts = zip(rows["packets"].tolist(), rows["octets"].tolist())
    return {key.tobytes(): count for key, count in zip(keys, counts)}
