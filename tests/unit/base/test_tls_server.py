"""The certificates of a server: refused with a reason, and read again when they are renewed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lab.certificates import Authority, encrypt_key
from netobs.base.errors import NetobsError
from netobs.base.tls_server import ServerFiles, ServerTls


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


def files(cert: Path, key: Path, client_ca: Path | str = "") -> ServerFiles:
    return ServerFiles("packet_capture", str(cert), str(key), str(client_ca))


def test_files_that_cannot_be_used(authority: Authority, tmp_path: Path) -> None:
    own, other = authority.issue("own"), authority.issue("other")
    nothing = tmp_path / "nothing.pem"
    empty = tmp_path / "empty.pem"
    empty.write_text("no certificate\n")
    encrypted = encrypt_key(own)
    for bad, message in (
        (files(nothing, own.key), f'packet_capture.cert "{nothing}": No such file or directory; set cert to a file'),
        (files(own.cert, nothing), f'packet_capture.key "{nothing}": No such file or directory; set key to a file'),
        (files(own.cert, other.key), f'packet_capture.key "{other.key}": does not belong to cert "{own.cert}"'),
        (files(own.cert, encrypted), f'packet_capture.key "{encrypted}": is encrypted, and netobs cannot ask'),
        (files(empty, own.key), f'packet_capture.cert "{empty}": it or key "{own.key}" is not a PEM file of its kind'),
        (files(own.cert, own.key, empty), f'packet_capture.client_ca "{empty}": not a PEM file with certificates'),
    ):
        with pytest.raises(NetobsError) as caught:
            ServerTls(bad)
        assert str(caught.value).startswith(message)


def test_renewed_certificates_are_read_again(authority: Authority, tmp_path: Path) -> None:
    own = authority.issue("renewed")
    served = ServerTls(files(own.cert, own.key))
    problems: list[NetobsError] = []
    first = served.context(problems.append)
    assert served.context(problems.append) is first  # nothing has changed
    own.cert.rename(tmp_path / "kept")
    assert served.context(problems.append) is first
    assert served.context(problems.append) is first
    assert ["No such file" in str(problem) for problem in problems] == [True]  # said once
    os.rename(tmp_path / "kept", own.cert)
    assert served.context(problems.append) is not first
