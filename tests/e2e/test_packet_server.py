"""Clients as people use them: nc-like ones into tshark and tcpdump, Wireshark's own, and those that stop or die."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.certificates import Authority
from lab.namespaces import Lab, in_namespace
from lab.packet_site import Site, descriptors, numbered, numbers_in
from lab.packets import OFFSET_NS, SECOND, mixed
from netobs.pcap.formats.stream import MAGIC_NUMBERS
from netobs.pcap.selection import LINK_ETHERNET, LINK_IP
from netobs.pcap.server.client_stream import Client

TOOLS = ("tshark", "dumpcap", "tcpdump", "socat", "bash")
pytestmark = pytest.mark.e2e(tools=TOOLS)

ROOT_NOTICE = 'Running as user "root" and group "root". This could be dangerous.'
COUNT = 2000
FIELDS = ("-T", "fields", "-e", "frame.time_epoch", "-e", "frame.len", "-e", "frame.cap_len")
MiB = 1 << 20


@contextlib.contextmanager
def shell(command: str, directory: Path) -> Iterator[subprocess.Popen[bytes]]:
    """``command`` of bash, with its output in the files out and err."""
    argv = ["bash", "-o", "pipefail", "-c", command]
    with (directory / "out").open("wb") as out, (directory / "err").open("wb") as err:
        process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=out, stderr=err, cwd=directory, start_new_session=True
        )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def until_ended(site: Site, process: subprocess.Popen[bytes]) -> None:
    site.until(lambda: process.poll() is not None, "the client's program ends")


def serve(site: Site, process: subprocess.Popen[bytes], packets: int = COUNT) -> None:
    """Let the client of ``process`` have mixed packets, end its stream, and wait for the end of the process."""
    site.until_clients(1)
    everything = mixed(packets, links=(LINK_ETHERNET, LINK_IP) if site.config.format == "pcapng" else (LINK_ETHERNET,))
    for begin in range(0, packets, 100):
        site.source.feed(everything[begin : begin + 100])
    site.until(lambda: site.server.total.sent == packets)
    site.stop()
    until_ended(site, process)
    assert process.returncode == 0


def expected(packets: int, links: tuple[int, ...]) -> list[str]:
    """What tshark prints of ``mixed`` with FIELDS."""
    walls = [(packet, packet.time_ns + OFFSET_NS) for packet in mixed(packets, links=links)]
    return [f"{wall // SECOND}.{wall % SECOND:09}\t{packet.length}\t{len(packet.octets)}" for packet, wall in walls]


def complaints(directory: Path) -> list[str]:
    """What was said on standard error, but for what these programs say of any stream, also of one by tcpdump -w -:
    tshark -i ends with its name and an empty message."""
    usual = (ROOT_NOTICE, "Capturing on ", "reading from file ", "File: ", "Packets captured: ", "Packets received/")
    lines = (directory / "err").read_text().splitlines()
    pattern = r"|tshark: |\d+( packets.*)?| \*\* \(tshark:.*\[Main MESSAGE\] -- (Capture started\.|File: .*)"
    return [line for line in lines if not line.startswith(usual) and not re.fullmatch(pattern, line)]


@pytest.mark.parametrize("format_", ["pcap", "pcapng"])
@pytest.mark.parametrize(
    "reader",
    [
        "socat -u TCP:127.0.0.1:{port} - | tshark -n -r - {fields}",
        "socat -u TCP:127.0.0.1:{port} - | tshark -n -i - {fields}",
        "bash -c 'cat < /dev/tcp/127.0.0.1/{port}' | tshark -n -r - {fields}",
        "socat -t 60 TCP:127.0.0.1:{port} - </dev/null | tshark -n -r - {fields}",  # closes its sending side at once
        "tshark -n -i TCP@127.0.0.1:{port} {fields}",  # as Wireshark does it
        "dumpcap -q -i TCP@127.0.0.1:{port} -w saved && tshark -n -r saved {fields}",
    ],
)
def test_into_tshark(reader: str, format_: str, tmp_path: Path) -> None:
    with Site(format=format_) as site:
        with shell(reader.format(port=site.port, fields=" ".join(FIELDS)), tmp_path) as process:
            serve(site, process)
        links = (LINK_ETHERNET, LINK_IP) if format_ == "pcapng" else (LINK_ETHERNET,)
        assert (tmp_path / "out").read_text().splitlines() == expected(COUNT, links)
        assert complaints(tmp_path) == []


def test_into_tcpdump(tmp_path: Path) -> None:
    reader = "socat -u TCP:127.0.0.1:{port} - | tcpdump -v -n -tt --time-stamp-precision=nano -r -"
    with Site() as site, shell(reader.format(port=site.port), tmp_path) as process:
        serve(site, process)
    times = re.findall(r"^(\d+\.\d{9}) ", (tmp_path / "out").read_text(), re.M)
    assert times == [line.partition("\t")[0] for line in expected(COUNT, (LINK_ETHERNET,))]
    assert complaints(tmp_path) == []


def test_a_request_from_a_shell(tmp_path: Path) -> None:
    request = '{"filter": "udp", "count": 5, "format": "pcapng"}'
    reader = f"""exec 3<>/dev/tcp/127.0.0.1/{{port}}; echo '{request}' >&3; cat <&3 | tshark -n -r - | wc -l"""
    with Site() as site, shell(reader.replace("{port}", str(site.port)), tmp_path) as process:
        site.until_clients(1)
        site.source.feed(numbered(range(100)))
        site.until(lambda: process.poll() is not None, "it has the packets that it asked for")
    assert (tmp_path / "out").read_text().split() == ["5"]
    assert complaints(tmp_path) == []


@contextlib.contextmanager
def saving(site: Site, directory: Path, name: str) -> Iterator[subprocess.Popen[bytes]]:
    """A client that writes what it gets into a file."""
    process = subprocess.Popen(["socat", "-u", f"TCP:127.0.0.1:{site.port}", f"CREATE:{directory / name}"])
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("size", [100, 1500])
def test_one_stops_one_dies_one_is_fast(size: int, tmp_path: Path) -> None:
    queue_max_bytes, total = MiB, 40 * MiB // size
    with Site(queue_max_bytes=queue_max_bytes) as site, contextlib.ExitStack() as stack:
        stopped, killed, fast = (
            stack.enter_context(saving(site, tmp_path, name)) for name in ("stopped", "killed", "fast")
        )
        site.until_clients(3)
        before = descriptors()
        ports = {name: _port_of(process) for name, process in (("stopped", stopped), ("fast", fast))}
        stopped.send_signal(signal.SIGSTOP)
        for begin in range(0, total, 400):
            site.source.feed(numbered(range(begin, min(total, begin + 400)), size))
            site.until(lambda: not site.source.waiting)
            if begin == 4000:
                killed.kill()
                killed.wait()
            site.until(lambda: _client(site, ports["fast"]).counts.waiting == 0, "the fast one has it")
            assert all(client.connection.outbox.most_held_bytes <= queue_max_bytes for client in site.server.clients)
        site.until_clients(2)
        assert descriptors() == before - 1
        quick, slow = (_client(site, ports[name]).counts for name in ("fast", "stopped"))
        assert (quick.sent, quick.queue_full) == (total, 0)
        assert slow.queue_full > 0
        assert slow.sent + slow.waiting + slow.queue_full == total
        stopped.send_signal(signal.SIGCONT)
        site.until(lambda: _client(site, ports["stopped"]).counts.waiting == 0, "it goes on where it was")
        site.stop()
        site.until(lambda: stopped.poll() is not None and fast.poll() is not None, "both streams end")
        assert numbers_in((tmp_path / "fast").read_bytes()) == list(range(total))
        numbers = numbers_in((tmp_path / "stopped").read_bytes())
        assert numbers == sorted(set(numbers))
        assert len(numbers) == total - slow.queue_full
        gone = site.server.ended
        assert gone.sent + gone.not_sent + gone.queue_full < 3 * total  # of the killed one not everything came


def _client(site: Site, port: int) -> Client:
    return next(client for client in site.server.clients if str(client).endswith(f":{port}"))


def _port_of(process: subprocess.Popen[bytes]) -> int:
    """The port of the one TCP connection that ``process`` has."""
    inodes = {os.readlink(each) for each in Path(f"/proc/{process.pid}/fd").iterdir()}
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        row = line.split()
        if f"socket:[{row[9]}]" in inodes:
            return int(row[1].rpartition(":")[2], 16)
    raise AssertionError("it has no connection")


def test_streams_of_both_formats_begin_with_their_magic_number(tmp_path: Path) -> None:
    for format_, magic in MAGIC_NUMBERS.items():
        with Site(format=format_) as site:
            with saving(site, tmp_path, format_) as process:
                site.until_clients(1)
                site.stop()
                until_ended(site, process)
            assert (tmp_path / format_).read_bytes().startswith(magic)


@pytest.mark.e2e(tools=("openssl", "ip"))
def test_over_tls_from_another_host(lab: Lab, tmp_path: Path) -> None:
    """Without client_ca: the user there is not known, and need not be."""
    here, there = lab.pair()
    lab.address(here, "192.0.2.1/24")
    lab.address(there, "192.0.2.2/24")
    own = Authority(tmp_path).issue("own", "IP:192.0.2.1")
    argv = ["openssl", "s_client", "-connect", "192.0.2.1:9990", "-quiet"]
    with in_namespace(here.ns), Site(host="192.0.2.1", port=9990, cert=str(own.cert), key=str(own.key)) as site:
        client = lab.popen(there.ns, argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        site.until_clients(1)
        site.source.feed(numbered(range(10)))
        site.until(lambda: site.server.total.sent == 10)
        site.stop()
        until_ended(site, client)
        assert numbers_in(client.communicate()[0]) == list(range(10))
