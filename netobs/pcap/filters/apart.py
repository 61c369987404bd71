"""Runs libpcap in a process of its own, without capabilities, bounded in time and memory, which can be killed.

Any client may send the text of a filter. libpcap is C code, has had bugs, and waits for the name service without a
limit. So a short-lived process compiles each filter in its language. The simple form needs none.
"""

from __future__ import annotations

import contextlib
import json
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence

from netobs.base import child
from netobs.base.errors import FilterError
from netobs.pcap.filters import compile_filter, compile_text, given, joined, libpcap, simple
from netobs.pcap.selection import Filter, Instruction

MAX_TIME_S = 10
NAMES_KEY = "packet_capture.filter_names"
_MAX_CPU_S, _MAX_MEMORY_BYTES, _MAX_ANSWER_BYTES = 5, 512 << 20, 32 << 20
_UNKNOWN = ("unknown host", "unknown network", "unknown ether host")


def late() -> FilterError:
    """The error after MAX_TIME_S."""
    reason = f"the filter was not compiled within {MAX_TIME_S} s: the name service does not answer"
    return FilterError(reason, "use addresses instead of names", may_pass=True)


class Compilation:
    """A filter that another process compiles. ``result`` waits for it; ``close``, in any other thread, ends that."""

    def __init__(self, texts: Sequence[str], names: bool) -> None:
        """``names``: whether the name service may be asked for hosts and networks. Raises FilterError."""
        self._texts, self._names = given(texts), names
        self._socket, theirs = socket.socketpair()
        try:
            with theirs:
                self._process = subprocess.Popen(
                    child.command(__name__), stdin=theirs.fileno(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
                )
            self._socket.settimeout(MAX_TIME_S)
            self._socket.sendall(json.dumps({"texts": self._texts, "names": names}).encode())
            self._socket.shutdown(socket.SHUT_WR)
        except OSError as error:
            self._socket.close()
            raise FilterError(f"no process to compile the filter can be started: {error.strerror}") from error

    def result(self) -> Filter:
        """Blocks until the process has answered, or is closed; MAX_TIME_S at most. Call it once.

        :raises FilterError: a text cannot be compiled, or not in time.
        """
        answer = bytearray()
        try:
            with self._socket, contextlib.suppress(ConnectionError):
                while len(answer) <= _MAX_ANSWER_BYTES and (data := self._socket.recv(1 << 16)):
                    answer += data
        except socket.timeout:
            raise late() from None
        finally:
            self.close()
        return read_answer(self._texts, self._names, answer)

    def close(self) -> None:
        """Ends the process, if it has not ended."""
        self._process.kill()
        self._process.wait()


def compile_apart(texts: Sequence[str], names: bool = True) -> Filter:
    """As ``compile_filter``, but libpcap runs in another process. Blocks, MAX_TIME_S at most.

    :raises FilterError: a text cannot be compiled, or not in time.
    """
    return compile_filter(texts) if all(map(simple.is_simple, texts)) else Compilation(texts, names).result()


def read_answer(texts: Sequence[str], names: bool, answer: bytes | bytearray) -> Filter:
    """The filter for ``texts`` in the other process's answer, which is checked before it is used.

    :raises FilterError: it has none.
    """
    try:
        found = json.loads(answer)
        if "error" in found:
            message, hint = map(str, found["error"])
            if not names and any(word in message for word in _UNKNOWN):
                hint = f"write addresses; names are looked up for clients only if {NAMES_KEY} says so"
            raise FilterError(message, hint)
        compiled = [tuple(tuple(map(_instruction, program)) for program in pair) for pair in found["programs"]]
        return joined(texts, [(ethernet, ip) for ethernet, ip in compiled])
    except (ValueError, TypeError, KeyError, RecursionError):
        raise FilterError("the process that compiles the filter failed", "use a simpler filter") from None


def _instruction(values: Sequence[int]) -> Instruction:
    code, jt, jf, k = values
    most = ((code, 0xFFFF), (jt, 0xFF), (jf, 0xFF), (k, 0xFFFFFFFF))
    if not all(0 <= value <= limit and value == int(value) for value, limit in most):
        raise ValueError("no instruction")
    return Instruction(code, jt, jf, k)


def main() -> None:
    """The other process: one request comes from standard input, a socket, and its answer goes back there."""
    child.end_with_parent()
    with contextlib.suppress(FilterError):  # reported when a text needs it
        libpcap.library()
    child.give_up_privileges()
    with contextlib.suppress(OSError):  # a sandbox may refuse; its time is limited in any case
        resource.setrlimit(resource.RLIMIT_CPU, (_MAX_CPU_S, _MAX_CPU_S))
        resource.setrlimit(resource.RLIMIT_AS, (_MAX_MEMORY_BYTES, _MAX_MEMORY_BYTES))
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.alarm(2 * MAX_TIME_S)  # whoever started it hangs
    with socket.socket(fileno=sys.stdin.fileno()) as channel:
        request = bytearray()
        while data := channel.recv(1 << 16):
            request += data
        channel.sendall(json.dumps(_answer(json.loads(request))).encode())


def _answer(request: dict[str, list[str]]) -> dict[str, object]:
    if not request["names"]:
        libpcap.forbid_names()
    try:
        return {"programs": [compile_text(text) for text in request["texts"]]}
    except FilterError as error:
        return {"error": [error.args[0], error.hint]}
