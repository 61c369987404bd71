"""Transport Sessions over TLS, on real sockets on loopback, with certificates that the openssl program makes."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import shutil
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import termios
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lab.certificates import Authority, Certificate, encrypt_key
from netobs.base.errors import ExportError
from netobs.base.tls import RECORD_BYTES, who_else_reads
from netobs.config import CollectorConfig
from netobs.export.link.link import Link
from netobs.export.link.tls import client_context
from tests.unit.export.support import Bench, Message, TcpCollector, check_sequence, numbers_of, templates_of, udp_config

pytestmark = pytest.mark.skipif(not shutil.which("openssl"), reason="the program openssl is missing")

GROUP = 4242
MakeBench = Callable[..., Bench]
TLS_1_2, TLS_1_3 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3


@dataclass(frozen=True)
class Site:
    """What an operator has: an authority, a collector's and an exporter's certificate; and those of a stranger."""

    authority: Authority
    collector: Certificate
    exporter: Certificate
    stranger: Certificate
    stranger_authority: Authority
    expired: Certificate

    def config(self, port: int, **changes: object) -> CollectorConfig:
        files = {"ca": str(self.authority.ca), "cert": str(self.exporter.cert), "key": str(self.exporter.key)}
        return udp_config(port, **{"transport": "tls", **files, **changes})


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    authority = Authority(tmp_path_factory.mktemp("site"))
    stranger = Authority(tmp_path_factory.mktemp("stranger"))
    return Site(
        authority,
        authority.issue("collector", "IP:127.0.0.1", "DNS:flows.example"),
        authority.issue("exporter"),
        stranger.issue("stranger", "IP:127.0.0.1"),
        stranger,
        authority.issue("expired", "IP:127.0.0.1", days=-1),
    )


class _Connection:
    """The part of a socket that ``TcpCollector`` uses, with TLS in between."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext, errors: list[str]) -> None:
        sock.setblocking(False)
        self.tls = context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
        self.paused = False
        self._shaken = False
        self._errors = errors

    def setblocking(self, flag: bool) -> None:
        self.tls.setblocking(flag)

    def recv(self, size: int) -> bytes:
        if self.paused:
            raise BlockingIOError
        try:
            if not self._shaken:
                self.tls.do_handshake()
                self._shaken = True
            return self.tls.recv(size)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError) as error:
            raise BlockingIOError from error
        except OSError as error:
            self._errors.append(str(error))
            self.tls.close()  # as a real server does; the alert is on its way
            return b""

    def close(self) -> None:
        self.tls.close()


class _Listener:
    def __init__(self, listener: socket.socket, context: ssl.SSLContext, errors: list[str]) -> None:
        self._listener, self._context, self._errors = listener, context, errors
        self.paused = False

    def accept(self) -> tuple[Any, Any]:
        sock, address = self._listener.accept()
        connection = _Connection(sock, self._context, self._errors)
        connection.paused = self.paused
        return connection, address

    def close(self) -> None:
        self._listener.close()


class TlsCollector(TcpCollector):
    """A collector that wants a certificate of ``ca`` (None: it wants none). ``errors``: why it refused."""

    def __init__(
        self, own: Certificate, ca: Path | None, version: ssl.TLSVersion = TLS_1_3, port: int = 0, tickets: int = 2
    ) -> None:
        super().__init__(port=port)
        self.errors: list[str] = []
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = context.maximum_version = version
        context.num_tickets = tickets
        context.load_cert_chain(own.cert, own.key)
        if ca is not None:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(ca)
        self.tls_listener = _Listener(self.listener, context, self.errors)
        self.listener = self.tls_listener  # type: ignore[assignment]

    @property
    def messages(self) -> list[Message]:
        return self.sessions[-1] if self.sessions else []


@pytest.fixture
def make_tls(site: Site, cleanup: contextlib.ExitStack) -> Callable[..., TlsCollector]:
    def make(own: Certificate = site.collector, ca: Path | None = site.authority.ca, **options: Any) -> TlsCollector:
        collector = TlsCollector(own, ca, **options)
        cleanup.callback(collector.close)
        return collector

    return make


MakeTls = Callable[..., TlsCollector]


def arrive(bench: Bench, collector: TlsCollector, count: int) -> list[int]:
    """Run until ``count`` Data Records of the present session are here."""

    def done() -> bool:
        collector.poll()
        return len(numbers_of(collector.messages)) >= count and bool(collector.messages)

    bench.until(done, f"{count} Data Records at the collector; it says {collector.errors}")
    return numbers_of(collector.messages)


def fail(bench: Bench, collector: TcpCollector, count: int = 1) -> None:
    """Run until ``count`` attempts have failed."""

    def done() -> bool:
        collector.poll()
        if collector.ended:
            collector.hang_up()
        return bench.stats.failed_attempts >= count

    bench.until(done, "a failed attempt")


@pytest.mark.parametrize("version", [TLS_1_2, TLS_1_3])
@pytest.mark.parametrize("mutual", [False, True])
def test_templates_first_then_data(
    make_bench: MakeBench, make_tls: MakeTls, site: Site, version: ssl.TLSVersion, mutual: bool
) -> None:
    collector = make_tls(version=version, ca=site.authority.ca if mutual else None)
    bench = make_bench(site.config(collector.port, **({} if mutual else {"cert": "", "key": ""})))
    bench.open()
    early = bench.send(100)
    assert arrive(bench, collector, 100) == early
    late = bench.send(10_000)
    assert arrive(bench, collector, 10_100) == early + late
    check_sequence(collector.messages)
    assert collector.messages[0].numbers == []
    assert len(templates_of(collector.messages)) == 1
    assert bench.stats.sent == bench.stats.seen
    assert (bench.connected, bench.stats.failed_attempts) == (True, 0)


def test_certificate_refused_late_is_noticed_before_anything_is_sent(
    make_bench: MakeBench, make_tls: MakeTls, site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    """TLS 1.3: the exporter's handshake succeeds, whatever the collector thinks of its certificate."""
    caplog.set_level(logging.INFO, "netobs.export")
    collector = make_tls()
    stranger = {"cert": str(site.stranger.cert), "key": str(site.stranger.key)}
    bench = make_bench(site.config(collector.port, **stranger))
    bench.open()
    bench.send(100)
    for count in (1, 2):
        fail(bench, collector, count)
        assert bench.stats.sent.flows == bench.stats.template_messages == 0
        assert bench.stats.queued.flows == 100
        assert not bench.connected
        timer = bench.session._link._retry_timer
        assert timer is not None
        bench.now_ns = timer.when_ns
    assert "certificate" in collector.errors[0].lower()
    assert numbers_of(collector.messages) == []
    (line,) = caplog.messages
    assert "not reachable" in line
    assert "refused by the collector (TLS alert: unknown ca); check cert and key, after the TLS handshake" in line


@pytest.mark.parametrize("version", [TLS_1_2, TLS_1_3])
def test_no_certificate_where_one_is_wanted(
    make_bench: MakeBench, make_tls: MakeTls, site: Site, caplog: pytest.LogCaptureFixture, version: ssl.TLSVersion
) -> None:
    collector = make_tls(version=version)
    bench = make_bench(site.config(collector.port, cert="", key=""))
    bench.open()
    bench.send(10)
    fail(bench, collector)
    assert bench.stats.queued.flows == 10
    assert "check cert and key" in caplog.text


def test_a_collector_that_accepts_later_gets_what_waited(make_bench: MakeBench, make_tls: MakeTls, site: Site) -> None:
    strict = make_tls(ca=site.stranger_authority.ca)
    bench = make_bench(site.config(strict.port))
    bench.open()
    sent = bench.send(100)
    fail(bench, strict)
    strict.close()
    collector = make_tls(port=strict.port)
    bench.move(1)
    assert arrive(bench, collector, 100) == sent


@pytest.mark.parametrize(
    ("own", "changes", "said"),
    [
        ("stranger", {}, "unable to get local issuer certificate"),
        ("expired", {}, "certificate has expired"),
        ("collector", {"server_name": "other.example"}, "not valid for 'other.example'"),
        ("exporter", {}, "IP address mismatch"),
    ],
)
@pytest.mark.parametrize("version", [TLS_1_2, TLS_1_3])
def test_nothing_goes_to_a_collector_that_is_not_verified(
    make_bench: MakeBench,
    make_tls: MakeTls,
    site: Site,
    caplog: pytest.LogCaptureFixture,
    own: str,
    changes: dict[str, str],
    said: str,
    version: ssl.TLSVersion,
) -> None:
    collector = make_tls(own=getattr(site, own), version=version)
    bench = make_bench(site.config(collector.port, **changes))
    bench.open()
    bench.send(100)
    fail(bench, collector)
    assert bench.stats.queued.flows == 100
    assert bench.stats.sent.flows == bench.stats.template_messages == 0
    assert collector.messages == []
    assert "its certificate is not accepted" in caplog.text
    assert said in caplog.text


def test_the_name_that_must_be_in_the_certificate(make_bench: MakeBench, make_tls: MakeTls, site: Site) -> None:
    collector = make_tls()
    bench = make_bench(site.config(collector.port, server_name="flows.example"))
    bench.open()
    sent = bench.send(1)
    assert arrive(bench, collector, 1) == sent


def test_a_collector_that_sends_no_ticket_is_waited_for(make_bench: MakeBench, make_tls: MakeTls, site: Site) -> None:
    collector = make_tls(tickets=0)
    bench = make_bench(site.config(collector.port))
    bench.open()
    sent = bench.send(10)

    def shaken() -> bool:
        collector.poll()
        return bench.session._link._tls is not None and bench.session._link._tls.version() is not None  # type: ignore[attr-defined]

    bench.until(shaken, "the end of the handshake")
    for _ in range(10):
        collector.poll()
        bench.rounds(1)
    assert not bench.connected
    bench.move(1)
    assert arrive(bench, collector, 10) == sent


def test_slow_reader_gets_whole_messages_in_order(make_bench: MakeBench, make_tls: MakeTls, site: Site) -> None:
    """Writes block in the middle of a TLS record and go on later."""
    collector = make_tls()
    bench = make_bench(site.config(collector.port))
    bench.open()
    first = bench.send(1)
    arrive(bench, collector, 1)
    bench.session._link._sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)  # type: ignore[union-attr]
    sent = bench.send(300_000)
    assert bench.stats.queued.flows > 100_000

    def done() -> bool:
        collector.poll(limit=100_000)
        return len(numbers_of(collector.messages)) == 300_001

    bench.until(done, "all Data Records")
    assert numbers_of(collector.messages) == first + sent
    check_sequence(collector.messages)
    assert bench.stats.queued.flows == 0


def test_break_in_the_middle_sends_again_what_was_not_acknowledged(
    make_bench: MakeBench, make_tls: MakeTls, site: Site
) -> None:
    collector = make_tls()
    bench = make_bench(site.config(collector.port))
    bench.open()
    bench.send(1)
    arrive(bench, collector, 1)
    sent = bench.send(300_000)
    for _ in range(5):
        collector.poll(limit=100_000)
        bench.rounds(1)
    kernel_has = bench.stats.sent.flows
    assert 1 < kernel_has < 300_001
    collector.hang_up()  # with unread data: a reset
    bench.until(lambda: not bench.connected, "the end of the connection")
    acknowledged = bench.stats.sent.flows
    assert bench.stats.uncertain_bytes > 0
    assert bench.stats.resent.flows == kernel_has - acknowledged > 0
    assert acknowledged >= len(numbers_of(collector.messages)), "what was read is acknowledged"
    bench.move(1)
    missing = 300_001 - acknowledged
    assert arrive(bench, collector, missing) == sent[-missing:]
    check_sequence(collector.messages)
    assert bench.stats.reconnects == 1


def test_close_flushes_and_says_goodbye(make_bench: MakeBench, make_tls: MakeTls, site: Site) -> None:
    collector = make_tls()
    bench = make_bench(site.config(collector.port))
    bench.open()
    bench.send(1)
    arrive(bench, collector, 1)
    bench.send(3000)
    bench.session.close(bench.now_ns, bench.now_ns + 1)
    bench.until(lambda: bench.session.closed, "the end of the session")
    assert arrive(bench, collector, 3001) == list(range(3001))
    bench.until(lambda: collector.poll().ended, "the end of the stream")
    assert collector.errors == []  # without close_notify: an EOF in violation of the protocol
    assert bench.stats.not_sent == {}


@pytest.mark.parametrize("octets", range(10_000, 110_000, 10_000))
def test_what_is_taken_back_at_the_end_does_not_arrive(
    make_bench: MakeBench, make_tls: MakeTls, site: Site, octets: int
) -> None:
    """The last Message is half sent, or encrypted, when the time is up, and just then the collector reads on."""
    collector = make_tls()
    bench = make_bench(site.config(collector.port))
    bench.open()
    bench.send(1)
    arrive(bench, collector, 1)
    bench.send(300_000)
    for _ in range(5):
        bench.rounds(1)
    collector.poll(limit=octets)
    session = bench.session
    session._finish(bench.now_ns)
    bench.until(lambda: session.closed, "the end of the session")
    assert bench.stats.not_sent["closed"].flows > 0
    while not collector.poll().ended:
        bench.rounds(1)
    assert len(numbers_of(collector.messages)) == bench.stats.sent.flows


def test_a_handshake_without_answer_ends(
    make_bench: MakeBench, make_tls: MakeTls, site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    collector = make_tls()
    collector.tls_listener.paused = True
    bench = make_bench(site.config(collector.port))
    bench.open()

    def in_handshake() -> bool:
        collector.poll()
        return bench.session._link._tls is not None  # type: ignore[attr-defined]

    bench.until(in_handshake, "the TCP connection")
    bench.rounds()
    assert bench.stats.failed_attempts == 0
    bench.move(10.1)
    assert bench.stats.failed_attempts == 1
    assert "no answer in the TLS handshake" in caplog.text


def test_a_collector_without_tls(
    make_bench: MakeBench, make_tcp: Callable[..., TcpCollector], site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        bench = make_bench(site.config(listener.getsockname()[1]))
        bench.open()
        peer, _ = listener.accept()
        with peer:
            peer.sendall(b"220 ready\r\n")
            bench.until(lambda: bench.stats.failed_attempts == 1, "a failed handshake")
    assert "it does not speak TLS" in caplog.text


def test_a_collector_that_closes_in_the_handshake(
    make_bench: MakeBench, site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        bench = make_bench(site.config(listener.getsockname()[1]))
        bench.open()
        peer, _ = listener.accept()
        peer.shutdown(socket.SHUT_WR)
        bench.until(lambda: bench.stats.failed_attempts == 1, "a failed handshake")
        peer.close()
    assert "closed by the collector without a word of TLS" in caplog.text


def test_a_renewed_certificate_is_used_at_the_next_connection(
    make_bench: MakeBench, make_tls: MakeTls, site: Site, tmp_path: Path
) -> None:
    cert, key = tmp_path / "own.pem", tmp_path / "own.key"
    shutil.copy(site.stranger.cert, cert)
    shutil.copy(site.stranger.key, key)
    collector = make_tls()
    bench = make_bench(site.config(collector.port, cert=str(cert), key=str(key)))
    bench.open()
    sent = bench.send(10)
    fail(bench, collector)
    shutil.copy(site.exporter.cert, cert)
    bench.move(1)  # cert without its key: reported, tried again
    fail(bench, collector, 2)
    shutil.copy(site.exporter.key, key)
    bench.move(2)
    assert arrive(bench, collector, 10) == sent


def test_files_that_cannot_be_used_are_named(site: Site, tmp_path: Path) -> None:
    nonsense = tmp_path / "nonsense.pem"
    nonsense.write_text("no certificate", "utf-8")
    missing = str(tmp_path / "missing.pem")
    fifo, huge = tmp_path / "fifo", tmp_path / "huge"
    os.mkfifo(fifo)
    huge.touch()
    os.truncate(huge, 1 << 40)
    table = [
        *(({key: str(fifo)}, f'{key} "{fifo}": is not a regular file') for key in ("ca", "cert", "key")),
        *(({key: str(huge)}, f'{key} "{huge}": is longer than 8 MiB') for key in ("ca", "cert", "key")),
        *(({key: "/dev/zero"}, f'{key} "/dev/zero": is not a regular file') for key in ("ca", "cert", "key")),
        ({"ca": missing}, f'ca "{missing}": No such file or directory'),
        ({"ca": str(nonsense)}, f'ca "{nonsense}": not a PEM file with certificates'),
        ({"cert": missing}, f'cert "{missing}": No such file or directory'),
        ({"key": missing}, f'key "{missing}": No such file or directory'),
        ({"key": str(tmp_path)}, f'key "{tmp_path}": Is a directory'),
        ({"cert": str(nonsense)}, f'cert "{nonsense}": it or key '),
        ({"key": str(nonsense)}, f'key "{nonsense}" is not a PEM file of its kind'),
        ({"key": str(site.stranger.key)}, f'key "{site.stranger.key}": does not belong to cert '),
        ({"key": str(encrypt_key(site.exporter))}, "is encrypted, and netobs cannot ask for its password"),
    ]
    for changes, said in table:
        with pytest.raises(ExportError, match='collector "main": ') as caught:
            client_context(site.config(4740, **changes))
        assert said in str(caught.value)


def test_who_else_may_read_a_key() -> None:
    if os.geteuid() != 0:
        pytest.skip("root is needed to give a file away")
    with tempfile.TemporaryDirectory() as name:
        folder, key = Path(name), Path(name, "key.pem")
        folder.chmod(0o755)
        key.touch()
        os.chown(key, 0, GROUP)
        said = {}
        for mode in (0o600, 0o640, 0o644, 0o602):
            key.chmod(mode)
            said[mode] = who_else_reads(str(key))
        assert said == {0o600: "", 0o640: "", 0o644: "every user of this host", 0o602: "every user of this host"}
        (folder / "link").symlink_to(key)
        assert who_else_reads(str(folder / "link")) == "every user of this host"
        folder.chmod(0o700)
        assert who_else_reads(str(key)) == "", "nobody else comes to it"
        assert who_else_reads(str(folder / "missing")) == ""


def test_the_group_of_a_key_is_the_one_of_the_process_or_is_named() -> None:
    if os.geteuid() != 0:
        pytest.skip("root is needed to become another user")
    code = f"import os; os.setgroups([]); os.setresgid({GROUP}, {GROUP}, {GROUP}); os.setresuid(65534, 65534, 65534)\n"
    code += (
        "import sys; from netobs.base.tls import who_else_reads; print([who_else_reads(path) for path in sys.argv[1:]])"
    )
    with tempfile.TemporaryDirectory() as name:
        keys = [Path(name, each) for each in ("mine", "other")]
        Path(name).chmod(0o755)
        for key, group in zip(keys, (GROUP, GROUP + 1)):
            key.touch()
            os.chown(key, 0, group)
            key.chmod(0o640)
        # The modules are loaded before the user changes, who may not reach them.
        argv = [sys.executable, "-c", f"import netobs.base.tls, grp\n{code}", *map(str, keys)]
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[4])}
        done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(["", f"the group {GROUP + 1}"])


def test_what_is_offered_and_demanded(site: Site) -> None:
    context = client_context(site.config(4740, ca=""))
    assert context.minimum_version == TLS_1_2
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert not [cipher for cipher in context.get_ciphers() if cipher["strength_bits"] < 128]


def taken(link: Link) -> int:
    """Bytes that were read of what the kernel got: tcpi_bytes_received (linux/tcp.h) less FIONREAD."""
    sock = link._sock
    assert sock is not None

    def received() -> int:
        return int(struct.unpack_from("=128xQ", sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256))[0])

    while True:
        before, unread = received(), struct.unpack("i", fcntl.ioctl(sock.fileno(), termios.FIONREAD, bytes(4)))[0]
        if received() == before:
            return before - int(unread)


def test_a_flood_of_session_tickets_does_not_hold_the_loop(
    make_bench: MakeBench, make_tls: MakeTls, site: Site
) -> None:
    """A round reads a few records, however much the collector sends; flows go out in between."""
    collector = make_tls(tickets=1500)
    bench = make_bench(site.config(collector.port))
    bench.session.open(bench.clock, bench.now_ns)
    sent, most, before = bench.offer(500), 0, 0
    while before < 200_000:
        collector.poll()
        bench.rounds(1)
        after = taken(bench.session._link)
        most, before = max(most, after - before), after
    assert most <= 6 * RECORD_BYTES
    assert arrive(bench, collector, 500) == sent
    assert bench.stats.sent.flows == 500
