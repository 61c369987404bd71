"""Certificates as an operator's authority makes them, by the openssl program."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Certificate:
    """PEM files: the certificate, its private key, and both in one as socat wants them."""

    cert: Path
    key: Path

    @property
    def both(self) -> Path:
        path = self.cert.with_suffix(".both")
        path.write_bytes(self.key.read_bytes() + self.cert.read_bytes())
        return path


class Authority:
    """A certificate authority with its files in ``directory``; ``ca`` is what the others get from it."""

    def __init__(self, directory: Path, name: str = "ca") -> None:
        self._directory = directory
        own = self._issue(name, [f"subjectAltName=DNS:{name}", "basicConstraints=critical,CA:TRUE"], ())
        self.ca = own.cert
        self._signer = ("-CA", str(own.cert), "-CAkey", str(own.key))

    def issue(self, name: str, *names: str, days: int = 2) -> Certificate:
        """A certificate for ``names``, written as openssl writes them: "DNS:a.example", "IP:127.0.0.1"."""
        usage = ["basicConstraints=critical,CA:FALSE", f"subjectAltName={','.join(names or [f'DNS:{name}'])}"]
        return self._issue(name, usage, self._signer, days)

    def _issue(self, name: str, extensions: list[str], signer: tuple[str, ...], days: int = 2) -> Certificate:
        made = Certificate(self._directory / f"{name}.pem", self._directory / f"{name}.key")
        request = self._directory / f"{name}.csr"
        config = self._directory / f"{name}.cnf"
        config.write_text("[req]\ndistinguished_name=dn\n[dn]\n[ext]\n" + "\n".join(extensions) + "\n", "utf-8")
        new_key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", str(made.key))
        _openssl("req", "-new", "-config", str(config), *new_key, "-subj", f"/CN={name}", "-out", str(request))
        signed_by = (*signer, "-CAcreateserial") if signer else ("-signkey", str(made.key))
        _openssl(
            "x509", "-req", "-in", str(request), *signed_by, "-days", str(days), "-extfile", str(config),
            "-extensions", "ext", "-out", str(made.cert),
        )  # fmt: skip
        return made


def encrypt_key(certificate: Certificate) -> Path:
    """The private key, behind a passphrase."""
    path = certificate.key.with_suffix(".encrypted")
    _openssl("pkey", "-in", str(certificate.key), "-aes256", "-passout", "pass:secret", "-out", str(path))
    return path


def _openssl(*arguments: str) -> None:
    done = subprocess.run(
        ["openssl", *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
