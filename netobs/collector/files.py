"""``netobs listen --file``: IPFIX Files (RFC 5655: Messages, one after the other), printed like from the network."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import BinaryIO, TextIO

from netobs.base.errors import DecodeError
from netobs.base.ipfix import MESSAGE_HEADER
from netobs.collector.check import Checker
from netobs.collector.decode import Damaged, Decoded, Decoder
from netobs.collector.output import Printer, account_of, ending_quietly, interruptible

STANDARD_INPUT = "-"


class _Reader:
    """Reads one file after the other; ``problems`` counts damaged and unreadable Messages and files."""

    def __init__(self, decoder: Decoder, printer: Printer | Checker) -> None:
        self._decoder, self._printer = decoder, printer
        self.problems = 0

    def read(self, name: str, check_signals: Callable[[], None]) -> None:
        """Print the records of the file ``name``. Each is a Transport Session of its own (RFC 5655, 7)."""
        try:
            with _opened(name) as file:
                for at, message in self._messages(file, name):
                    check_signals()
                    decoded = self._decode(message, name, at)
                    if decoded is not None:
                        self._printer.show(decoded, name, {})
                        if name == STANDARD_INPUT:  # who writes there may wait
                            self._printer.out.flush()
        except OSError as error:
            if isinstance(error, BrokenPipeError):
                raise
            self._complain(name, f"cannot be read: {error.strerror}")
        self._printer.out.flush()
        self._decoder.forget(name)

    def _decode(self, message: bytes, name: str, at: int) -> Decoded | None:
        """The readable part of the Message at octet ``at`` of the file ``name``."""
        try:
            return self._decoder.decode(message, name)
        except Damaged as error:
            self._complain(name, f"Message at octet {at}: {error}")
            return error.decoded

    def _messages(self, file: BinaryIO, name: str) -> Iterator[tuple[int, bytes]]:
        """Octet in the file and content of each Message.

        A Message with a damaged header is skipped if its length leads to the next one; otherwise reading ends there.
        """
        at, is_lost = 0, False
        while True:
            head = file.read(MESSAGE_HEADER.itemsize)
            if not head:
                return
            length, problem = self._length(head)
            body = file.read(length - len(head)) if length else b""
            if problem == "" and len(head) + len(body) < length:
                self._decoder.stats.malformed += 1
                problem, length = f"octet {len(head) + len(body)}: the file ends, its length is {length}", 0
            if problem:
                give_up = is_lost or not length
                self._complain(name, f"Message at octet {at}: {problem}" + "; the rest is not read" * give_up)
                if give_up:
                    return
            else:
                yield at, head + body
            at, is_lost = at + length, problem != ""

    def _length(self, head: bytes) -> tuple[int, str]:
        """Length of the Message that starts with ``head`` (0: unknown), and the mistake in its header."""
        try:
            return self._decoder.length(head), ""
        except DecodeError as error:
            length = int.from_bytes(head[2:4], "big")
            is_usable = len(head) >= MESSAGE_HEADER.itemsize and length >= MESSAGE_HEADER.itemsize
            return length if is_usable else 0, str(error)

    def _complain(self, name: str, text: str) -> None:
        self.problems += 1
        self._printer.problem(name, text)
        self._printer.out.flush()
        print(f"netobs listen: {name}: {text}", file=sys.stderr, flush=True)


@contextmanager
def _opened(name: str) -> Iterator[BinaryIO]:
    if name == STANDARD_INPUT:
        yield sys.stdin.buffer
        return
    with open(name, "rb") as file:
        yield file


def listen_files(
    names: Sequence[str],
    as_json: bool = False,
    once: int = 0,
    options: bool = False,
    out: TextIO | None = None,
    check: bool = False,
) -> tuple[bool, bool]:
    """Print the records of the IPFIX Files ``names`` ("-" is standard input) in their order; opens no socket.

    Returns whether everything was readable, and whether anything was odd (``check``). Unreadable parts have a line on
    standard error. Parameters as in ``listen``. The work of a Message is not limited, because nobody waits.
    """
    decoder, out = Decoder(max_steps=sys.maxsize), sys.stdout if out is None else out
    printer = Checker(out, as_json, once) if check else Printer(out, as_json, options, once)
    reader = _Reader(decoder, printer)
    with interruptible() as check_signals, ending_quietly(out, lambda: account_of(decoder), printer.end):
        printer.title()
        for name in names:
            reader.read(name, check_signals)
    return reader.problems == 0, printer.is_odd
