"""libfixbuf's reader behind TLS, and behind a file that an IPFIX stream was stored in."""

from __future__ import annotations

from pathlib import Path

from lab.certificates import Certificate
from lab.collectors import IpfixDump
from lab.namespaces import Lab
from lab.programs import WAIT_S

TLS_PORT = 4740


class TlsIpfixDump(IpfixDump):
    """Shows ``own`` and wants a certificate that ``ca`` has signed."""

    def __init__(
        self,
        lab: Lab,
        ns: str,
        directory: Path,
        own: Certificate,
        ca: Path,
        version: str = "TLS1.3",
        port: int = TLS_PORT,
    ) -> None:
        super().__init__(lab, ns, directory, port)
        self._tls = f"cert={own.both},cafile={ca},verify=1,openssl-min-proto-version={version}"
        self._tls += f",openssl-max-proto-version={version}"

    def _listen(self) -> str:
        return f"OPENSSL-LISTEN:{self.port},bind={self.host},reuseaddr,{self._tls}"


class StoredStream(IpfixDump):
    """Stores what comes over one TCP connection; ``ipfixDump`` reads the file (RFC 5655: Messages, back to back)."""

    def _start(self) -> None:
        self.stored = self.directory / "stream.ipfix"
        process = self._process = self._run(["socat", "-u", self._listen(), f"CREATE:{self.stored}"])
        self._ready(process, lambda: self._bound(process, self.port, "tcp"))

    def text(self) -> str:
        if self._reader is None:
            if self._process:
                self._process.wait(WAIT_S)  # until the exporter has closed its connection
            with self.output.open("wb") as output:
                self._reader = self._run([*self._argv, str(self.stored)], stdout=output)
        return super().text()
