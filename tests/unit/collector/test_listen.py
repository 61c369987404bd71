"""``netobs listen`` as a process of its own: what it prints, what ends it, and how."""

from __future__ import annotations

import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from lab.messages import OPTIONS9
from lab.samples import golden_messages
from netobs.collector.receive import listen
from tests.unit.collector.test_receive import FLOWS, WAIT_S, send_udp

ROOT = Path(__file__).resolve().parents[3]


class Process:
    """``listen`` in a process of its own; ``arguments`` as in a call. Or ``netobs listen`` with ``options``."""

    def __init__(self, arguments: str = "", *options: str) -> None:
        call = ["-m", "netobs", "listen", "--host", "127.0.0.1", "--port", "0", *options]
        self.run = subprocess.Popen(
            [
                sys.executable,
                *(["-c", f"from netobs.collector.receive import listen\nlisten({arguments})"] if arguments else call),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            text=True,
        )
        assert self.run.stderr is not None
        ready = self.run.stderr.readline()
        assert ready.startswith("netobs listen: listening on "), ready
        self.port = int(ready.split()[-1])

    def finish(self) -> tuple[str, str]:
        return self.run.communicate(timeout=WAIT_S)

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *error: object) -> None:
        if self.run.poll() is None:
            self.run.kill()
        for pipe in (self.run.stdout, self.run.stderr):
            if pipe is not None:
                pipe.close()
        self.run.wait()


def test_json_lines_until_enough() -> None:
    with Process("'127.0.0.1', 0, as_json=True, once=7") as process:
        send_udp("127.0.0.1", process.port, golden_messages())
        output, errors = process.finish()
        assert process.run.returncode == 0
    flows = [json.loads(line) for line in output.splitlines()]
    assert len(flows) == 7
    assert list(flows[0])[:3] == ["exporterIPv4Address", "observationDomainId", "sourceIPv4Address"]
    assert (flows[0]["exporterIPv4Address"], flows[0]["observationDomainId"]) == ("127.0.0.1", 42)
    assert flows[6]["octetDeltaCount"] == 5400
    assert "7 flows in 3 Messages, 0 records lost, 0 Sets without a Template, 0 Messages malformed" in errors


def test_options_of_netflow9_are_printed_where_asked_for() -> None:
    with Process("'127.0.0.1', 0, as_json=True, options=True, once=1") as process:
        send_udp("127.0.0.1", process.port, [OPTIONS9, *golden_messages()[:2]])
        output, errors = process.finish()
    option, flow = (json.loads(line) for line in output.splitlines())
    assert option == {
        "exporterIPv4Address": "127.0.0.1",
        "observationDomainId": 7,
        "optionsTemplateId": 515,
        "scopeSystem": 0x0A000001,
        "samplingInterval": 100,
        "samplingAlgorithm": 2,
    }
    assert flow["protocolIdentifier"] == 6
    assert ", 1 options records" in errors


def test_table_until_enough() -> None:
    with Process("'::1', 0, once=1") as process, socket.create_connection(("::1", process.port)) as sender:
        sender.sendall(b"".join(golden_messages()))
        output, _ = process.finish()
    assert [line.split()[0] for line in output.splitlines()] == ["start", "2023-11-14T22:13:11.123Z"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_it_cleanly(number: signal.Signals) -> None:
    with Process("'', 0, as_json=True") as process:
        send_udp("127.0.0.1", process.port, golden_messages()[:2])
        assert process.run.stdout is not None
        first = [process.run.stdout.readline() for _ in range(5)]
        process.run.send_signal(number)
        output, errors = process.finish()
        assert process.run.returncode == 0
    assert all(json.loads(line) for line in first)
    assert output == ""
    assert "Traceback" not in errors


def test_broken_pipe_ends_it_quietly() -> None:
    with Process("'127.0.0.1', 0, as_json=True") as process:
        assert process.run.stdout is not None
        process.run.stdout.close()
        process.run.stdout = None
        with suppress(ConnectionRefusedError):  # it may end before it has all of them
            send_udp("127.0.0.1", process.port, golden_messages())
        _, errors = process.finish()
        assert process.run.returncode == 0
    assert "Traceback" not in errors
    assert "BrokenPipe" not in errors


def test_listen_leaves_signal_handling_as_it_was() -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]

    def send_when_it_listens() -> None:
        deadline = time.monotonic() + WAIT_S
        while time.monotonic() < deadline:
            with suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)) as sender:
                sender.sendall(b"".join(golden_messages()))
                return

    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    sender, out = threading.Thread(target=send_when_it_listens), io.StringIO()
    sender.start()
    listen("127.0.0.1", port, as_json=True, once=FLOWS, out=out)
    sender.join()
    assert len(out.getvalue().splitlines()) == FLOWS
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
    assert signal.set_wakeup_fd(-1) == -1


def test_check_says_what_is_odd_and_exits_with_3() -> None:
    with Process("", "--check", "--once", "12") as process:
        send_udp("127.0.0.1", process.port, [b"\0\x0a\0\x0f" + bytes(12), *golden_messages()])
        output, errors = process.finish()
        assert process.run.returncode == 3
    found = [line.split(": ") for line in output.splitlines()]
    assert [words[1] for words in found if words[0] == "in all"] == ["export-time", "malformed", "no-sampling"]
    assert found[0][1:5] == ["malformed", "ignored", "malformed IPFIX Message", "octet 2"]
    assert "Traceback" not in errors
    assert "12 flows in 5 Messages" in errors
