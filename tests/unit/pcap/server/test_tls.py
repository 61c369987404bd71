"""TLS to clients: this side alone, and both sides with certificates; and who does not speak it."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.certificates import Authority, Certificate
from lab.packet_site import Site, numbered, numbers_in
from lab.packets import SECOND
from netobs.base.errors import NetobsError

MiB = 1 << 20


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def own(authority: Authority) -> Certificate:
    return authority.issue("own", "IP:127.0.0.1")


@contextlib.contextmanager
def s_client(site: Site, output: Path, authority: Authority, *more: str) -> Iterator[subprocess.Popen[bytes]]:
    """openssl's client, with what it gets in the file ``output``."""
    argv = ["openssl", "s_client", "-connect", f"127.0.0.1:{site.port}", "-CAfile", str(authority.ca), "-quiet"]
    argv += ["-verify_return_error", "-verify_ip", "127.0.0.1", *more]
    with output.open("wb") as file:
        process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=file, stderr=subprocess.PIPE)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def ended(site: Site, process: subprocess.Popen[bytes]) -> str:
    """What openssl has to say when it has come to its end."""
    site.until(lambda: process.poll() is not None, "openssl ends")
    return process.communicate()[1].decode()


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_a_stream_over_tls(authority: Authority, own: Certificate, tmp_path: Path, version: str) -> None:
    with Site(cert=str(own.cert), key=str(own.key)) as site:
        with s_client(site, tmp_path / "out", authority, version) as process:
            assert process.stdin is not None
            process.stdin.write(b"udp\n")
            process.stdin.flush()
            site.until_clients(1)
            for begin in range(0, 20_000, 400):
                site.source.feed(numbered(range(begin, begin + 400), 1000))
            site.until(lambda: site.server.total.sent == 20_000)
            site.stop()
            ended(site, process)
        assert numbers_in((tmp_path / "out").read_bytes()) == list(range(20_000))
        site.until(lambda: not site.server.admission.connections)


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_with_a_certificate_of_the_client(authority: Authority, own: Certificate, tmp_path: Path, version: str) -> None:
    client = authority.issue("client")
    with Site(cert=str(own.cert), key=str(own.key), client_ca=str(authority.ca)) as site:
        shown = ("-cert", str(client.cert), "-key", str(client.key), version)
        with s_client(site, tmp_path / "out", authority, *shown) as process:
            site.until_clients(1)  # it says nothing: the configured values
            site.source.feed(numbered(range(100)))
            site.until(lambda: site.server.total.sent == 100)
            site.stop()
            ended(site, process)
        assert numbers_in((tmp_path / "out").read_bytes()) == list(range(100))


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
@pytest.mark.parametrize("shown", ["none", "of another authority"])
def test_without_the_certificate_that_is_asked_for(
    authority: Authority,
    own: Certificate,
    tmp_path: Path,
    version: str,
    shown: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    stranger = Authority(tmp_path, "others").issue("stranger")
    more = ("-cert", str(stranger.cert), "-key", str(stranger.key)) if shown != "none" else ()
    with Site(cert=str(own.cert), key=str(own.key), client_ca=str(authority.ca)) as site:
        with s_client(site, tmp_path / "out", authority, version, *more) as process:
            said = ended(site, process)
        assert "alert" in said
        assert (tmp_path / "out").read_bytes() == b""
        assert site.server.clients_ever == 0
        assert site.server.admission.refused == {"tls": 1}
        assert site.source.selections_ever == 0
    reason = (
        "peer did not return a certificate" if shown == "none" else "its certificate is not accepted: unable to get"
    )
    assert [reason in line for line in caplog.messages] == [True]


def test_plain_text_and_garbage_on_a_tls_port(own: Certificate, caplog: pytest.LogCaptureFixture) -> None:
    with Site(cert=str(own.cert), key=str(own.key)) as site:
        for data in (
            b"udp port 53\n",
            b"GET / HTTP/1.1\r\n\r\n",
            os.urandom(10_000),
            b"\x16\x03\x01\xff\xff" + b"x" * 9000,
        ):
            client = site.connect(data)
            got: list[bytes] = []

            def gone(client: socket.socket = client, got: list[bytes] = got) -> bool:
                try:
                    got.append(client.recv(1000))
                except BlockingIOError:
                    return False
                except OSError:
                    got.append(b"")
                return got[-1] == b""

            site.until(gone)
        site.until(lambda: not site.server.admission.connections)
        assert site.server.admission.refused == {"tls": 4}
        assert sum("refused: TLS handshake: it does not speak TLS" in line for line in caplog.messages) == 1
        assert len(caplog.messages) == 1


def test_half_a_handshake_does_not_last(own: Certificate) -> None:
    with Site(cert=str(own.cert), key=str(own.key)) as site:
        site.connect(b"\x16\x03\x01")
        site.connect(None)
        site.until(lambda: site.server.admission.connections_ever == 2)
        site.skip(5 * SECOND)
        site.until(lambda: not site.server.admission.connections)
        assert site.server.admission.refused == {"tls": 2}


def tls_client(site: Site, authority: Authority) -> ssl.SSLSocket:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(authority.ca)
    client = context.wrap_socket(
        site.connect(None),
        server_hostname="127.0.0.1",
        do_handshake_on_connect=False,
        suppress_ragged_eofs=False,  # an end without close_notify is an error
    )
    site.clients.append(client)

    def shaken() -> bool:
        try:
            client.do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return False
        return True

    site.until(shaken)
    return client


def read_all(site: Site, client: ssl.SSLSocket) -> bytes:
    data, over = bytearray(), []

    def at_end() -> bool:
        try:
            while part := client.recv(1 << 16):
                data.extend(part)
            over.append(True)
        except ssl.SSLWantReadError:
            pass
        return bool(over)

    site.until(at_end)
    return bytes(data)


def test_refusals_go_through_tls(authority: Authority, own: Certificate) -> None:
    with Site(cert=str(own.cert), key=str(own.key)) as site:
        client = tls_client(site, authority)
        client.send(b"no such\n")
        assert read_all(site, client).startswith(b'netobs: filter "no such": can\'t parse filter expression')


def test_a_slow_client_over_tls_gets_whole_records(authority: Authority, own: Certificate) -> None:
    with Site(cert=str(own.cert), key=str(own.key), queue_max_bytes=256 << 10) as site:
        client = tls_client(site, authority)
        site.until_clients(1)
        begin = 0
        while not site.server.total.queue_full:
            site.source.feed(numbered(range(begin, begin + 400), 1500))
            begin += 400
            site.until(lambda: not site.source.waiting)
        site.stop()
        numbers = numbers_in(read_all(site, client))
        assert len(numbers) == begin - site.server.total.queue_full
        assert numbers == sorted(set(numbers))


def shown_to(client: ssl.SSLSocket) -> str:
    """The common name in the server's certificate."""
    certificate = client.getpeercert()
    assert certificate is not None
    return certificate["subject"][0][0][1]


def test_renewed_certificates_are_used_for_the_next_connection(authority: Authority, tmp_path: Path) -> None:
    paths = tmp_path / "cert", tmp_path / "key"

    def use(made: Certificate) -> None:
        for source, path in zip((made.cert, made.key), paths):
            path.with_suffix(".new").write_bytes(source.read_bytes())
            path.with_suffix(".new").rename(path)

    use(authority.issue("first", "IP:127.0.0.1"))
    with Site(cert=str(paths[0]), key=str(paths[1])) as site:
        shown = [shown_to(tls_client(site, authority))]
        use(authority.issue("second", "IP:127.0.0.1"))
        shown.append(shown_to(tls_client(site, authority)))
        paths[0].unlink()  # in the middle of the next renewal
        shown.append(shown_to(tls_client(site, authority)))
        assert shown == ["first", "second", "second"]


def test_a_certificate_that_is_not_there() -> None:
    with pytest.raises(NetobsError, match=r'packet_capture.cert "/no/cert.pem": No such file'):
        Site(cert="/no/cert.pem", key="/no/key.pem")
