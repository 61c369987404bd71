"""Filters are compiled by another process, which has no privileges, and whose end is certain."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from lab.packet_site import compiling, stop
from lab.programs import gone, wait_until
from netobs.base.errors import NetobsError
from netobs.base.loop import EventLoop
from netobs.pcap.filters import compile_filter
from netobs.pcap.filters.apart import Compilation, compile_apart, read_answer
from netobs.pcap.server.compiling import MAX_AT_ONCE, Compiler
from netobs.pcap.server.connection import Connection
from netobs.pcap.server.peer import Peer

TEXT = "host 192.0.2.1 or port 53"
SLOW = " or ".join(f"portrange {port}-{port + 7}" for port in range(1, 2400, 16))
"""libpcap needs seconds for it."""
PROGRAM = """
import os, sys
from netobs.pcap.filters.apart import Compilation
print(Compilation(["host 192.0.2.1"], True)._process.pid, flush=True)
os.kill(os.getpid(), 9)
"""


@pytest.mark.parametrize("texts", [[TEXT], ["tcp,80", TEXT], ["ether host 02:00:00:00:00:01"], ["udp"]])
def test_it_compiles_the_same(texts: list[str]) -> None:
    assert compile_apart(texts, names=False) == compile_filter(texts)


@pytest.mark.parametrize("text", ["host (", "tcp,99999", "protochain 6", "no such"])
def test_it_refuses_with_the_same_words(text: str) -> None:
    with pytest.raises(NetobsError) as here:
        compile_filter([text])
    with pytest.raises(NetobsError) as there:
        compile_apart([text])
    assert str(there.value) == str(here.value)


def test_it_has_no_privileges() -> None:
    """Not even root's, where the test runs as root."""
    compilation = Compilation([TEXT], names=False)
    try:
        wait_until(lambda: len(compiling()) == 1, "it is there")
        (pid,) = compiling()
        status = Path(f"/proc/{pid}/status")
        wait_until(lambda: "CapPrm:\t0000000000000000" in status.read_text("ascii"), "it gives up its capabilities")
        stop(pid)
        text = status.read_text("ascii")
        assert re.search(r"^CapEff:\s0+$", text, re.MULTILINE)
        assert not re.search(r"^Uid:.*\b0\b", text, re.MULTILINE)
    finally:
        compilation.close()
        with contextlib.suppress(NetobsError):  # it may have answered before it was stopped
            compilation.result()
    assert gone(pid)


def test_it_ends_with_the_process_that_started_it() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == -9
    wait_until(lambda: gone(int(done.stdout)), "it ends")


@pytest.mark.parametrize(
    "answer",
    [b"", b"{", b"[]", b"{}", b"[" * 100_000, json.dumps({"programs": [[[[6, 0, 0, 1 << 32]], []]]}).encode(),
     json.dumps({"programs": [[[[5, 0, 0, 9]], []]]}).encode(), json.dumps({"programs": [[[], [], []]]}).encode()],
)  # fmt: skip
def test_what_it_says_is_not_believed(answer: bytes) -> None:
    """As if libpcap had been taken over: an answer that is none, or a program that the kernel must not run."""
    with pytest.raises(NetobsError, match=r"the process that compiles the filter failed|it runs beyond its end"):
        read_answer([TEXT], False, answer)


def test_a_user_cannot_take_all_places() -> None:
    with EventLoop() as loop, contextlib.ExitStack() as stack:
        compiler = Compiler(loop, names=True)

        def begin(uid: int) -> None:
            ours, _theirs = map(stack.enter_context, socket.socketpair())
            connection = Connection(ours, Peer("a user", uid), loop, 1 << 20, None)
            conversation = compiler.compile([SLOW], connection)
            next(conversation)
            stack.callback(conversation.close)
            for pid in compiling():
                stop(pid)  # it would end, and make place

        for uid in range(1, MAX_AT_ONCE + 1):
            begin(uid)
        with pytest.raises(NetobsError, match="too many filters are being compiled"):
            begin(99)
        begin(0)
        assert len(compiling()) == MAX_AT_ONCE + 1, "root has its own"
        stack.close()
    assert compiling() == []
