"""`netobs capture`: by itself, and through a daemon; what it writes is read by tcpdump and tshark."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from lab.certificates import Authority
from lab.daemon import NETOBS, Daemon, alive, bpf_objects, configuration, netobs, traffic_control
from lab.namespaces import Lab, Link
from lab.pcap import read_pcap
from lab.programs import Program, wait_until
from lab.taps import make_taps
from lab.traffic import REPOSITORY, Traffic

pytestmark = pytest.mark.e2e(tools=("tcpdump", "tshark", "socat"))

PORT = 9990
RATE = 2000


class CaptureCommand(Program):
    """`netobs capture` in the background; it is attached, or has its stream, when it is entered."""

    def __init__(
        self,
        lab: Lab,
        ns: str,
        directory: Path,
        *options: str,
        file: str,
        conf: Path | None = None,
        prefix: Sequence[str] = (),
    ) -> None:
        super().__init__(lab, ns, directory, "capture")
        self.file = self.directory / file
        before = ["--conf", str(conf or self.directory / "none.toml")]
        self._argv = [*prefix, *NETOBS, *before, "capture", "--write", str(self.file), *options]

    def _start(self) -> None:
        process = self._process = self._run(self._argv, cwd=REPOSITORY)
        self._ready(process, lambda: self.file.exists() and self.file.stat().st_size > 0)

    def interrupt(self) -> str:
        """As Ctrl-C does; its last words."""
        self.process.send_signal(signal.SIGINT)
        return self.ended()

    def ended(self) -> str:
        """Its last words, when it has come to its end by itself."""
        assert self.process.wait(20) == 0, self.log
        return self.log


def tshark(file: Path, *fields: str) -> list[list[str]]:
    """The fields of each packet. No word of complaint."""
    argv = ["tshark", "-n", "-r", str(file), "-T", "fields", *(word for name in fields for word in ("-e", name))]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    warnings = [line for line in done.stderr.splitlines() if "Running as user" not in line]
    assert warnings == []
    return [line.split("\t") for line in done.stdout.splitlines()]


def tcpdump(file: Path) -> int:
    """How many packets tcpdump reads. No word of complaint."""
    done = subprocess.run(["tcpdump", "-n", "-r", str(file)], capture_output=True, text=True, check=True)
    assert re.fullmatch(r"reading from file [^\n]*\n", done.stderr)
    return len(done.stdout.splitlines())


@pytest.mark.parametrize("file", ["out.pcap", "out.pcapng"])
def test_by_itself_until_it_is_interrupted(lab: Lab, tmp_path: Path, file: str) -> None:
    sender, receiver = lab.pair()
    with CaptureCommand(lab, receiver.ns, tmp_path, "--filter", "udp", "--interface", "veth0", file=file) as command:
        objects = bpf_objects(command.process)
        assert {"prog", "map"} <= {kind for kind, _ in objects}
        Traffic(packets=500, flows=5).send(lab, sender, rate=RATE)
        Traffic(packets=100, flows=5, protocol="tcp").send(lab, sender, rate=RATE)
        words = command.interrupt()
    lost = "" if file == "out.pcap" else ", 0 lost"
    assert re.search(rf"^500 packets{lost}, \d+ bytes written to .*{file}$", words, re.MULTILINE)
    assert tcpdump(command.file) == 500
    assert tshark(command.file, "ip.proto") == [["17"]] * 500
    assert alive(objects) == frozenset()
    assert "packets_" not in traffic_control(lab, receiver.ns)
    assert command.file.stat().st_mode & 0o777 == 0o600


def test_all_interfaces_are_captured_on_from_the_header_on(lab: Lab, tmp_path: Path) -> None:
    """It attaches to one after the other, which takes the kernel some 30 ms each."""
    host = lab.namespace("host")
    make_taps(host, (f"tap{number}" for number in range(12)))
    _, last = lab.veth(lab.namespace("far"), host, names=("far", "last"))
    with CaptureCommand(lab, host, tmp_path, file="out.pcapng") as command:
        Traffic(packets=20, flows=1).send(lab, last, rate=RATE)
        command.interrupt()
    assert tcpdump(command.file) == 20


def test_names_and_directions_of_interfaces(lab: Lab, tmp_path: Path) -> None:
    one, host = lab.pair()
    two = lab.namespace("two")
    _, other = lab.veth(two, host.ns, names=("far", "tap-customer"))
    with CaptureCommand(lab, host.ns, tmp_path, file="out.pcapng") as command:
        Traffic(packets=10, flows=1).send(lab, one, rate=RATE)
        Traffic(packets=20, flows=1).send(lab, other, rate=RATE)
        command.interrupt()
    rows = tshark(command.file, "frame.interface_name", "frame.packet_flags_direction")
    inbound, outbound = "1", "2"
    assert [[name, str(int(flags, 0))] for name, flags in rows] == [["veth0", inbound]] * 10 + [
        ["tap-customer", outbound]
    ] * 20


def test_so_many_packets(lab: Lab, tmp_path: Path) -> None:
    sender, receiver = lab.pair()
    options = ("--interface", "veth0", "--count", "7", "--snaplen", "64")
    with CaptureCommand(lab, receiver.ns, tmp_path, *options, file="out.pcap") as command:
        Traffic(packets=500, flows=5, size=200).send(lab, sender, rate=RATE)
        assert command.ended().startswith("7 packets, ")
    assert [(packet.length, len(packet.octets)) for packet in read_pcap(command.file)] == [(200, 64)] * 7


@pytest.mark.parametrize("file", ["out.pcap", "out.pcapng"])
def test_so_long_without_a_packet(lab: Lab, tmp_path: Path, file: str) -> None:
    receiver = lab.pair()[1]
    options = ("--interface", "veth0", "--duration", "300ms")
    with CaptureCommand(lab, receiver.ns, tmp_path, *options, file=file) as command:
        assert command.ended().startswith("0 packets, ")
    assert tshark(command.file, "frame.number") == []
    assert tcpdump(command.file) == 0


def test_into_a_pipe_whose_reader_has_had_enough(lab: Lab) -> None:
    sender, receiver = lab.pair()
    script = f"{' '.join(NETOBS)} capture --alone --interface veth0 | tcpdump -n -c 5 -r -"
    reader = lab.popen(
        receiver.ns, ["sh", "-c", script], cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    running = Traffic(packets=200_000, flows=5).start(lab, sender, rate=RATE)
    out, words = reader.communicate(timeout=30)
    running.stop()
    assert len(out.splitlines()) == 5
    assert "packets" in words
    assert "Traceback" not in words


MISTAKES = [
    (["--interface", "eth9"], "netobs: no interface is called eth9; the host has lo, veth0\n"),
    (["--filter", "host and"], 'netobs: filter "host and": can\'t parse filter expression: syntax error\n'),
    (["--filter", "tcp,http"], 'netobs: filter "tcp,http": port "http" is not a number; write tcp,80\n'),
    (["--write", "/proc/nowhere/x"], "netobs: /proc/nowhere/x: cannot be written: No such file or directory\n"),
    (["--interface", "veth["], 'netobs: --interface "veth[" is not an interface name; give one name\n'),
    (["--connect", "127.0.0.1:9"], "netobs: 127.0.0.1:9: nobody listens there; is netobs running, with "),
    (["--recorded"], "netobs: /run/netobs/capture.sock: nobody listens there; is netobs running, with "),
]


@pytest.mark.parametrize(("options", "said"), MISTAKES, ids=[" ".join(options) for options, _ in MISTAKES])
def test_a_mistake_is_one_line(lab: Lab, tmp_path: Path, options: list[str], said: str) -> None:
    ns = lab.pair()[1].ns
    file = tmp_path / "old.pcapng"
    file.write_bytes(b"of a former capture")
    write = [] if "--write" in options else ["--write", str(file)]
    done = netobs(lab, ns, "--conf", str(tmp_path / "none.toml"), "capture", *write, *options)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert done.stderr.startswith(said)
    assert file.read_bytes() == b"of a former capture"


def on_terminal(lab: Lab, ns: str, *options: str) -> tuple[int, subprocess.Popen[bytes]]:
    """The command with standard error on a terminal: the other end of that, and the process."""
    ours, theirs = pty.openpty()
    argv = [*NETOBS, "capture", "--alone", "--interface", "veth0", *options]
    process = lab.popen(ns, argv, cwd=REPOSITORY, stderr=theirs, stdout=theirs)
    os.close(theirs)
    return ours, process


def test_a_counter_on_a_terminal(lab: Lab, tmp_path: Path) -> None:
    sender, receiver = lab.pair()
    ours, process = on_terminal(lab, receiver.ns, "--write", str(tmp_path / "out.pcap"))
    seen = b""

    def shown() -> bool:
        nonlocal seen
        Traffic(packets=10, flows=1).send(lab, sender, rate=RATE)
        seen += os.read(ours, 4096)
        return re.search(rb"\r[1-9][0-9]* packets, \d+ bytes, \d+ s", seen) is not None

    wait_until(shown, "the counter counts")
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 0
    os.close(ours)


def test_packets_are_not_for_a_terminal(lab: Lab) -> None:
    ours, process = on_terminal(lab, lab.pair()[1].ns)
    assert process.wait(20) == 1
    assert os.read(ours, 4096).startswith(b"netobs: packets are not text for a terminal; use --write FILE")
    os.close(ours)


def served(**settings: object) -> str:
    listen = f"127.0.0.1:{PORT}"
    return configuration(packet_capture={"enabled": True, "listen": listen, "filter": "udp", **settings})


def test_through_the_daemon(lab: Lab, tmp_path: Path) -> None:
    sender, receiver = lab.pair()
    with Daemon(lab, receiver.ns, tmp_path, served()) as daemon:
        options = ("--filter", "tcp", "--count", "30", "--interface", "veth0")
        with CaptureCommand(lab, receiver.ns, tmp_path, *options, file="out.pcapng", conf=daemon.conf) as command:
            assert bpf_objects(command.process) == frozenset()
            for protocol in ("udp", "tcp"):
                Traffic(packets=50, flows=5, protocol=protocol).send(lab, sender, rate=RATE)
            assert re.search(r"^30 packets, 0 lost, \d+ bytes written to", command.ended())
        refused = netobs(lab, receiver.ns, "--conf", str(daemon.conf), "capture", "--interface", "lo", "--write", "x")
        assert refused.stderr == 'netobs: interface "lo" is not captured; captured are: veth0\n'
        assert refused.returncode == 1
        secret = netobs(lab, receiver.ns, "capture", "--connect", f"127.0.0.1:{PORT}", "--tls", "--write", "x")
        assert secret.stderr == (
            f"netobs: 127.0.0.1:{PORT}: TLS: wrong version number; the daemon there does not speak TLS: connect "
            "without --tls, --ca and --cert\n"
        )
    assert tshark(command.file, "ip.proto", "frame.interface_name") == [["6", "veth0"]] * 30


def test_at_a_unix_socket(lab: Lab, tmp_path: Path) -> None:
    """`netobs capture` finds it by the configuration, and so does a pipe into tshark; it goes with the daemon."""
    sender, receiver = lab.pair()
    path = tmp_path / "run" / "capture.sock"
    with Daemon(lab, receiver.ns, tmp_path, served(listen=str(path))) as daemon:
        assert f"packet capture: listening on {path}, filter" in daemon.log
        with CaptureCommand(lab, receiver.ns, tmp_path, "--count", "30", file="out.pcap", conf=daemon.conf) as command:
            argv = ["sh", "-c", f"socat -u UNIX-CONNECT:{path} - > {tmp_path}/socat.pcap"]
            reader = lab.popen(receiver.ns, argv)
            daemon.wait_for('gets "udp" as pcap')
            Traffic(packets=30, flows=5).send(lab, sender, rate=RATE)
            assert command.ended().startswith("30 packets")
        daemon.finish()
        assert reader.wait(20) == 0
    assert len(read_pcap(command.file)) == len(read_pcap(tmp_path / "socat.pcap")) == 30
    assert not path.exists()
    gone = netobs(lab, receiver.ns, "--conf", str(daemon.conf), "capture", "--recorded", "--write", "x")
    assert gone.stderr.startswith(f"netobs: {path}: nobody listens there")


WORDS = "\x1b]0;owned\x07\x1cnetobs: all is well"


def test_the_words_of_a_server_do_nothing_to_a_terminal(lab: Lab, tmp_path: Path) -> None:
    path = tmp_path / "capture.sock"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        argv = [*NETOBS, "capture", "--connect", str(path), "--write", str(tmp_path / "x")]
        client = subprocess.Popen(argv, cwd=REPOSITORY, stderr=subprocess.PIPE)
        accepted, _ = server.accept()
        with accepted:
            accepted.sendall(f"netobs: {WORDS}\n".encode())
            said = client.communicate(timeout=20)[1]
    assert said == rb"netobs: \x1b]0;owned\x07\x1cnetobs: all is well" + b"\n"


def test_what_the_recorder_holds(lab: Lab, tmp_path: Path) -> None:
    sender, receiver = lab.pair()
    with Daemon(lab, receiver.ns, tmp_path, served(recorder="1h", recorder_max="1MiB")) as daemon:
        Traffic(packets=200, flows=5, size=300).send(lab, sender, rate=RATE)
        Traffic(packets=50, flows=5, protocol="tcp").send(lab, sender, rate=RATE)
        wait_until(lambda: recorded(lab, receiver, daemon, tmp_path / "out.pcap") == 200, "all is recorded")
        assert len(read_pcap(tmp_path / "out.pcap")) == tcpdump(tmp_path / "out.pcap") == 200
        assert recorded(lab, receiver, daemon, tmp_path / "again.pcapng") == 200
        Traffic(packets=10_000, flows=5, size=300).send(lab, sender, rate=10 * RATE)
        last = tmp_path / "last.pcap"
        wait_until(lambda: recorded(lab, receiver, daemon, last) > 2_500, "more than fits was recorded")
        assert last.stat().st_size <= 1 << 20
        assert daemon.finish().is_balanced()
    assert f" of {1 << 20} bytes" in daemon.log


def recorded(lab: Lab, link: Link, daemon: Daemon, file: Path) -> int:
    """How many packets `netobs capture --recorded` writes to ``file``."""
    done = netobs(lab, link.ns, "--conf", str(daemon.conf), "capture", "--recorded", "--write", str(file))
    assert done.returncode == 0, done.stderr
    return int(done.stderr.split()[0])


def test_over_tls_with_the_certificate_of_the_configuration(lab: Lab, tmp_path: Path) -> None:
    sender, receiver = lab.pair()
    authority = Authority(tmp_path)
    own, mine = authority.issue("server", "DNS:host.example"), authority.issue("client")
    files = {"cert": str(own.cert), "key": str(own.key), "client_ca": str(authority.ca)}
    with Daemon(lab, receiver.ns, tmp_path, served(**files)) as daemon:
        conf = ("--conf", str(daemon.conf))
        unknown = netobs(lab, receiver.ns, *conf, "capture", "--write", str(tmp_path / "x"))
        assert unknown.returncode == 1
        assert unknown.stderr.endswith("; if it asks for a certificate, --cert and --key name one\n")
        plain = netobs(lab, receiver.ns, *conf, "capture", "--connect", f"127.0.0.1:{PORT}", "--write", "x")
        assert plain.stderr.endswith("; if it talks TLS, so do with --tls\n")
        options = ("--cert", str(mine.cert), "--key", str(mine.key), "--count", "10")
        with CaptureCommand(lab, receiver.ns, tmp_path, *options, file="out.pcapng", conf=daemon.conf) as command:
            Traffic(packets=10, flows=1).send(lab, sender, rate=RATE)
            assert command.ended().startswith("10 packets, 0 lost")
        wrong = netobs(lab, receiver.ns, *conf, "capture", "--ca", "/nowhere", "--write", str(tmp_path / "x"))
        assert wrong.stderr == 'netobs: --ca "/nowhere": No such file or directory; name a PEM file that is right\n'


def test_a_reload_changes_the_agent_and_no_flow_is_lost(lab: Lab, tmp_path: Path) -> None:
    sender, receiver = lab.pair()
    with Daemon(lab, receiver.ns, tmp_path, configuration({"direction": "ingress"})) as daemon:
        # More than the test takes: it is ended then.
        running = Traffic(packets=2_000_000, flows=50).start(lab, sender, rate=10 * RATE)
        daemon.reload(served())
        daemon.wait_for("packet capture: listening on 127.0.0.1:9990, filter")
        with CaptureCommand(lab, receiver.ns, tmp_path, file="out.pcapng", conf=daemon.conf) as command:
            wait_until(lambda: command.file.stat().st_size > 10_000, "packets come")
            daemon.reload(served(listen="127.0.0.1:9991"))
            assert command.ended().split()[1] == "packets,"
        daemon.wait_for("packet capture: listening on 127.0.0.1:9991")
        assert "packet capture: listening" not in daemon.reload(configuration({"direction": "ingress"}))
        problem = daemon.reload(served(filter="tpc,80"))
        assert 'packet_capture.filter: filter "tpc,80": there is no protocol "tpc"; did you mean tcp?' in problem
        sent = running.stop()
        account = daemon.finish()
    assert account.seen.packets == sent.packets
    assert account.is_balanced()


def test_dry_run_tells_of_it(lab: Lab, tmp_path: Path) -> None:
    ns = lab.pair()[1].ns
    conf = tmp_path / "netobs.toml"
    conf.write_text(served(recorder="30s"), encoding="utf-8")
    done = netobs(lab, ns, "--conf", str(conf), "--dry-run")
    assert done.returncode == 0, done.stdout
    assert 'packet capture: 127.0.0.1:9990, pcap, filter "udp"' in done.stdout
    conf.write_text(served(filter="host nowhere.invalid.", listen="192.0.2.1:9990", allow=["::/0"]), encoding="utf-8")
    done = netobs(lab, ns, "--conf", str(conf), "--dry-run")
    assert done.returncode == 1
    assert "problem: packet_capture.filter: filter" in done.stdout
    assert 'problem: packet_capture.listen "192.0.2.1:9990": not an address of this host' in done.stdout


@pytest.mark.parametrize("host", ["0.0.0.0", "[::]", "192.0.2.1"])
def test_an_open_door_is_refused(lab: Lab, tmp_path: Path, host: str) -> None:
    conf = tmp_path / "netobs.toml"
    conf.write_text(served(listen=f"{host}:{PORT}"), encoding="utf-8")
    done = netobs(lab, lab.namespace(), "--conf", str(conf))
    assert done.returncode == 1
    shown = json.dumps(host.strip("[]"))
    assert f"[packet_capture] listen: {shown} is not a loopback address: anybody who reaches the port" in done.stderr
