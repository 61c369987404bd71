"""A filter that is never compiled keeps nobody: neither the loop nor the end of the program."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Sequence

import pytest

from lab.packet_site import any_filter
from netobs.base.errors import NetobsError
from netobs.base.loop import EventLoop
from netobs.pcap.selection import Filter
from netobs.pcap.server.compiling import MAX_TIME_NS, Compiler

PROGRAM = """
import threading
from netobs.base.clock import monotonic_ns
from netobs.base.loop import EventLoop
from netobs.pcap.server.compiling import Compiler
with EventLoop() as loop:
    Compiler(loop, lambda texts: threading.Event().wait()).submit(["host slow.example"], print, monotonic_ns())
    loop.run_once(0)
print("the end")
"""


def test_the_program_ends_although_a_thread_hangs() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "the end\n", "")


@pytest.mark.parametrize("text", ["udp", "no such"])
def test_an_answer_comes_once_by_the_loop(text: str) -> None:
    now_ns, answers, main = [0], [], threading.get_ident()
    with EventLoop(lambda: now_ns[0]) as loop:

        def done(result: Filter | NetobsError, when_ns: int) -> None:
            assert threading.get_ident() == main
            answers.append((result, when_ns))

        Compiler(loop, any_filter).submit([text], done, 0)
        while not answers:
            loop.run_once(10_000_000)
        now_ns[0] = MAX_TIME_NS
        loop.run_once(0)
    assert len(answers) == 1
    assert isinstance(answers[0][0], NetobsError if text == "no such" else Filter)


def test_an_answer_that_comes_too_late_is_none() -> None:
    now_ns, answers, go_on = [0], [], threading.Event()

    def compile_filter(texts: Sequence[str]) -> Filter:
        go_on.wait()
        return any_filter(texts)

    with EventLoop(lambda: now_ns[0]) as loop:
        compiler = Compiler(loop, compile_filter)
        compiler.submit(["udp"], lambda result, _now_ns: answers.append(str(result)), 0)
        now_ns[0] = MAX_TIME_NS
        loop.run_once(0)
        assert len(answers) == 1
        assert answers[0].startswith("the filter was not compiled within 10 s")
        go_on.set()
        while compiler.running:
            loop.run_once(10_000_000)
    assert len(answers) == 1
