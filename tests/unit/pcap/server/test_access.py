"""Who may connect, and with which certificates; what is said of those who may not."""

from __future__ import annotations

import os
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from lab.certificates import Authority, encrypt_key
from netobs.base.errors import NetobsError
from netobs.config.addresses import Endpoint
from netobs.config.schema import PacketCaptureConfig
from netobs.pcap.server.access import ServerTls
from netobs.pcap.server.peer import address_of, endpoint_of, is_allowed


@pytest.mark.parametrize(
    ("host", "prefixes", "allowed"),
    [
        ("192.0.2.7", (), True),
        ("192.0.2.7", ("192.0.2.0/24",), True),
        ("192.0.3.7", ("192.0.2.0/24",), False),
        ("192.0.3.7", ("192.0.2.0/24", "192.0.3.7/32"), True),
        ("::ffff:192.0.2.7", ("192.0.2.0/24",), True),  # of a dual-stack socket
        ("::ffff:192.0.3.7", ("192.0.2.0/24",), False),
        ("2001:db8::1", ("192.0.2.0/24",), False),
        ("2001:db8::1", ("2001:db8::/32",), True),
        ("fe80::1%eth0", ("fe80::/10",), True),
    ],
)
def test_who_may_connect(host: str, prefixes: tuple[str, ...], allowed: bool) -> None:
    assert is_allowed(address_of(host), [ip_network(prefix) for prefix in prefixes]) is allowed


def test_a_mapped_address_is_an_ipv4_address() -> None:
    assert address_of("::ffff:192.0.2.7") == ip_address("192.0.2.7")
    assert str(endpoint_of(("::ffff:192.0.2.7", 5000, 0, 0))) == "192.0.2.7:5000"
    assert str(endpoint_of(("2001:db8::1", 5000, 0, 0))) == "[2001:db8::1]:5000"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


def config(cert: Path, key: Path, client_ca: Path | str = "") -> PacketCaptureConfig:
    return PacketCaptureConfig(
        listen=Endpoint("127.0.0.1", 9990), cert=str(cert), key=str(key), client_ca=str(client_ca)
    )


def test_files_that_cannot_be_used(authority: Authority, tmp_path: Path) -> None:
    own, other = authority.issue("own"), authority.issue("other")
    nothing = tmp_path / "nothing.pem"
    empty = tmp_path / "empty.pem"
    empty.write_text("no certificate\n")
    encrypted = encrypt_key(own)
    for bad, message in (
        (config(nothing, own.key), f'packet_capture.cert "{nothing}": No such file or directory; set cert to a file'),
        (config(own.cert, nothing), f'packet_capture.key "{nothing}": No such file or directory; set key to a file'),
        (config(own.cert, other.key), f'packet_capture.key "{other.key}": does not belong to cert "{own.cert}"'),
        (config(own.cert, encrypted), f'packet_capture.key "{encrypted}": is encrypted, and netobs cannot ask'),
        (config(empty, own.key), f'packet_capture.cert "{empty}": it or key "{own.key}" is not a PEM file of its kind'),
        (config(own.cert, own.key, empty), f'packet_capture.client_ca "{empty}": not a PEM file with certificates'),
    ):
        with pytest.raises(NetobsError) as caught:
            ServerTls(bad)
        assert str(caught.value).startswith(message)


def test_renewed_certificates_are_read_again(authority: Authority, tmp_path: Path) -> None:
    own = authority.issue("renewed")
    served = ServerTls(config(own.cert, own.key))
    first = served.context
    served.refresh()
    assert served.context is first  # nothing has changed
    own.cert.rename(tmp_path / "kept")
    with pytest.raises(NetobsError, match=r"No such file"):
        served.refresh()
    served.refresh()  # said once; the context from before stays
    assert served.context is first
    os.rename(tmp_path / "kept", own.cert)
    served.refresh()
    assert served.context is not first
