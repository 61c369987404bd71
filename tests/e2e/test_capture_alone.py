"""`netobs capture` without a daemon, beside others of its kind, and whatever ends it."""

from __future__ import annotations

import os
import pty
import re
import signal
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from lab import frames
from lab.daemon import NETOBS, Daemon, children, configuration, netobs, traffic_control
from lab.namespaces import Lab, Link, in_namespace
from lab.programs import WAIT_S, wait_until
from lab.traffic import REPOSITORY, Traffic
from lab.wire import Tun
from netobs.pcap.cli.stream_reader import StreamReader
from tests.e2e.test_capture_command import RATE, CaptureCommand, recorded, served, tcpdump

pytestmark = pytest.mark.e2e(tools=("tcpdump", "tc", "bpftool"))

UDP = ("--filter", "udp", "--interface", "veth0")


@pytest.fixture(params=["tcx", "tc"])
def conf(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A configuration that attaches in this way."""
    path = tmp_path / "netobs.toml"
    path.write_text(configuration({"attach": request.param}), encoding="utf-8")
    return path


def alone(
    lab: Lab, link: Link, directory: Path, conf: Path, *options: str, prefix: Sequence[str] = ()
) -> CaptureCommand:
    directory.mkdir()
    given = ("--alone", *UDP, *options)
    return CaptureCommand(lab, link.ns, directory, *given, file="out.pcapng", conf=conf, prefix=prefix)


def send(lab: Lab, sender: Link, packets: int = 100) -> None:
    Traffic(packets=packets, flows=1).send(lab, sender, rate=RATE)


def test_two_at_a_time(lab: Lab, tmp_path: Path, conf: Path) -> None:
    sender, receiver = lab.pair()
    with alone(lab, receiver, tmp_path / "first", conf) as first:
        with alone(lab, receiver, tmp_path / "second", conf) as second:
            send(lab, sender, 100)
            assert second.interrupt().startswith("100 packets, 0 lost, ")
        send(lab, sender, 50)
        assert first.interrupt().startswith("150 packets, 0 lost, ")
    assert "packets_" not in traffic_control(lab, receiver.ns)
    assert "clsact" not in traffic_control(lab, receiver.ns)


@pytest.mark.parametrize("attach", ["tcx", "tc"])
def test_beside_a_daemon(lab: Lab, tmp_path: Path, attach: str) -> None:
    sender, receiver = lab.pair()
    settings = served(recorder="1h").replace("[capture]\n", f'[capture]\nattach = "{attach}"\n')
    with Daemon(lab, receiver.ns, tmp_path, settings) as daemon:
        with alone(lab, receiver, tmp_path / "alone", daemon.conf) as command:
            send(lab, sender, 100)
            assert command.interrupt().startswith("100 packets, 0 lost, ")
        send(lab, sender, 50)
        wait_until(lambda: recorded(lab, receiver, daemon, tmp_path / "out.pcap") == 150, "the recorder got all")
        assert daemon.finish().is_balanced()
        assert "somebody removed the filter" not in daemon.log


def test_an_interrupted_one_makes_room_for_the_next(lab: Lab, tmp_path: Path) -> None:
    sender, receiver = lab.pair()
    with Daemon(lab, receiver.ns, tmp_path, served(max_clients=1)) as daemon:
        for number, packets in enumerate((0, 0, 30)):
            directory = tmp_path / f"capture{number}"
            directory.mkdir()
            with CaptureCommand(lab, receiver.ns, directory, file="out.pcapng", conf=daemon.conf) as command:
                if packets:
                    send(lab, sender, packets)
                lost = ", 0 lost" if packets else ""
                assert command.interrupt().startswith(f"{packets} packets{lost}, ")
                daemon.wait_for(f"the client asked for the end: {packets} packets in ")


def test_a_daemon_that_ends_a_stream_is_told_of(lab: Lab, tmp_path: Path) -> None:
    receiver = lab.pair()[1]
    with Daemon(lab, receiver.ns, tmp_path, served()) as daemon:
        options = ("--count", "5", "--duration", "1h")
        with CaptureCommand(lab, receiver.ns, tmp_path, *options, file="out.pcapng", conf=daemon.conf) as command:
            daemon.finish()
            assert "netobs: the daemon ended the stream early; its log has the reason\n" in command.ended()


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT, signal.SIGTERM], ids=lambda each: each.name)
def test_a_signal_ends_it_well(lab: Lab, tmp_path: Path, conf: Path, number: signal.Signals) -> None:
    sender, receiver = lab.pair()
    with alone(lab, receiver, tmp_path / "alone", conf) as command:
        send(lab, sender, 30)
        command.process.send_signal(number)
        assert command.ended().startswith("30 packets, 0 lost, ")
    assert tcpdump(command.file) == 30
    assert "packets_" not in traffic_control(lab, receiver.ns)
    assert "clsact" not in traffic_control(lab, receiver.ns)


def test_its_terminal_is_gone(lab: Lab, tmp_path: Path, conf: Path) -> None:
    sender, receiver = lab.pair()
    ours, theirs = pty.openpty()
    file = tmp_path / "out.pcapng"
    argv = [*NETOBS, "--conf", str(conf), "capture", "--alone", *UDP, "--write", str(file)]
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    process = lab.popen(receiver.ns, argv, cwd=REPOSITORY, stderr=theirs, env=buffered)
    os.close(theirs)
    wait_until(lambda: file.exists() and file.stat().st_size > 0, "it captures")
    send(lab, sender, 30)
    os.close(ours)
    for _ in range(2):  # from the shell, and from the kernel when the shell is gone
        process.send_signal(signal.SIGHUP)
    assert process.wait(20) == 0
    reader = StreamReader()
    reader.feed(file.read_bytes())
    assert (reader.packets, reader.lost) == (30, 0)
    assert "packets_" not in traffic_control(lab, receiver.ns)


def test_a_second_signal_ends_it_where_nobody_reads(lab: Lab, tmp_path: Path, conf: Path) -> None:
    receiver = lab.pair()[1]
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    argv = [*NETOBS, "--conf", str(conf), "capture", "--alone", *UDP, "--write", str(fifo)]
    process = lab.popen(receiver.ns, argv, cwd=REPOSITORY)
    opening = Path(f"/proc/{process.pid}/wchan")
    wait_until(lambda: opening.read_text(encoding="ascii") == "wait_for_partner", "it waits for a reader")

    def has_ended() -> bool:
        process.send_signal(signal.SIGINT)
        return process.poll() is not None

    wait_until(has_ended, "it ends")
    assert process.returncode == 128 + signal.SIGINT
    assert "packets_" not in traffic_control(lab, receiver.ns)


def test_without_standard_error_nothing_is_said_among_the_packets(lab: Lab) -> None:
    script = f"cd {REPOSITORY} && {' '.join(NETOBS)} capture --alone --interface lo --duration 100ms 2>&-"
    done = subprocess.run(["ip", "netns", "exec", lab.namespace(), "sh", "-c", script], capture_output=True, check=True)
    reader = StreamReader()
    reader.feed(done.stdout)
    assert (reader.bytes, reader.is_whole) == (len(done.stdout), True)


def ended_by(process: subprocess.Popen[str], number: signal.Signals) -> bool:
    """Whether the signal ends it as it ends any program, without a word."""
    process.send_signal(number)
    assert process.stderr is not None
    return (process.wait(WAIT_S), process.stderr.read()) == (-number, "")


@pytest.mark.parametrize(
    ("moment", "number", "in_background"),
    [
        ("_ctypes.", signal.SIGINT, False),
        ("_umath_linalg", signal.SIGTERM, False),
        ("_multiarray_umath", signal.SIGINT, True),
        ("libpcap", signal.SIGINT, False),
        ("libpcap", signal.SIGINT, True),
    ],
)
def test_a_signal_ends_it_at_any_moment_of_its_start(
    lab: Lab, tmp_path: Path, moment: str, number: signal.Signals, in_background: bool
) -> None:
    """``moment``: a library is loaded, libpcap in a process of its own. A script's shell starts what it puts into the
    background with SIGINT ignored."""
    takes_minutes = " or ".join(f"host 10.{number // 250}.{number % 250}.9" for number in range(2000))
    argv = [*NETOBS, "capture", "--alone", "--filter", takes_minutes, "--write", str(tmp_path / "x")]
    if in_background:
        argv = ["sh", "-c", 'trap "" INT; exec "$@"', "sh", *argv]
    process = lab.popen(lab.namespace(), argv, cwd=REPOSITORY, stderr=subprocess.PIPE, text=True)

    def is_loaded() -> bool:
        return any(moment in mapped(pid) for pid in (process.pid, *children(process.pid)))

    wait_until(is_loaded, f"{moment} is loaded")
    others = children(process.pid)
    assert ended_by(process, number)
    wait_until(lambda: not any(map(mapped, others)), "the processes that it started are gone")


def mapped(pid: int) -> str:
    """What a process has in its memory; empty if there is no such process."""
    try:
        return Path(f"/proc/{pid}/maps").read_text(encoding="utf-8")
    except OSError:
        return ""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_while_the_daemon_does_not_answer(lab: Lab, number: signal.Signals) -> None:
    ns = lab.namespace()
    with in_namespace(ns), socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(WAIT_S)
        argv = [*NETOBS, "capture", "--connect", f"127.0.0.1:{silent.getsockname()[1]}"]
        process = lab.popen(ns, argv, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        with silent.accept()[0] as connection:
            assert connection.recv(1) == b"{"
            assert ended_by(process, number)


def test_packets_that_classic_pcap_has_no_place_for(lab: Lab, tmp_path: Path) -> None:
    sender, receiver = lab.pair()
    directory = tmp_path / "alone"
    directory.mkdir()
    options = ("--alone", "--filter", "udp", "--count", "30")
    command = CaptureCommand(lab, receiver.ns, directory, *options, file="out.pcap")
    with Tun(lab, receiver.ns, "tun0") as tun, command:
        tun.send(*[frames.ipv4(frames.UDP, frames.udp())] * 5)
        send(lab, sender, 30)
        words = command.ended()
    assert "5 packets were left out: classic pcap has one link type, pcapng has place for all\n" in words
    assert "30 packets, " in words


def test_a_configuration_that_cannot_be_read(lab: Lab) -> None:
    done = netobs(lab, lab.namespace(), "--conf", "n" * 300, "capture", "--write", "x")
    assert (done.returncode, done.stderr) == (1, f"netobs: {'n' * 300}: cannot be read: File name too long\n")


def test_nohup_keeps_it_running(lab: Lab, tmp_path: Path, conf: Path) -> None:
    sender, receiver = lab.pair()
    with alone(lab, receiver, tmp_path / "alone", conf, "--count", "30", prefix=["nohup"]) as command:
        command.process.send_signal(signal.SIGHUP)
        send(lab, sender, 30)
        assert "30 packets, 0 lost, " in command.ended()


def test_what_a_killed_one_has_left_is_taken_over(lab: Lab, tmp_path: Path) -> None:
    sender, receiver = lab.pair()
    conf = tmp_path / "netobs.toml"
    conf.write_text(configuration({"attach": "tc"}), encoding="utf-8")
    with alone(lab, receiver, tmp_path / "killed", conf) as killed:
        killed.process.kill()
        killed.process.wait()
    left = re.findall(r"handle \S+ packets_", traffic_control(lab, receiver.ns))
    assert len(left) == 2
    with alone(lab, receiver, tmp_path / "alone", conf) as command:
        send(lab, sender, 30)
        assert len(re.findall(r"handle \S+ packets_", traffic_control(lab, receiver.ns))) == 2
        assert command.interrupt().startswith("30 packets, 0 lost, ")
    assert "packets_" not in traffic_control(lab, receiver.ns)


def test_a_filter_that_somebody_removed_is_set_again(lab: Lab, tmp_path: Path) -> None:
    sender, receiver = lab.pair()
    conf = tmp_path / "netobs.toml"
    conf.write_text(configuration({"attach": "tc"}), encoding="utf-8")
    with alone(lab, receiver, tmp_path / "alone", conf) as command:
        lab.run(receiver.ns, ["tc", "qdisc", "del", "dev", receiver.name, "clsact"])
        wait_until(lambda: "packets_ingress" in traffic_control(lab, receiver.ns), "it is there again")
        send(lab, sender, 30)
        words = command.interrupt()
    assert "packet capture: veth0: ingress was not captured for a while: somebody removed the filter" in words
    assert "30 packets, 0 lost, " in words
