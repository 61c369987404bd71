"""A TCP or TLS collector that writes down what it reads, one file for each connection. Run as a program:

    python3 recorder.py PORT DIRECTORY [RECEIVE_BUFFER [CERTIFICATE_AND_KEY CA]]

At SIGTERM it goes on reading until nothing has come for a moment, then closes, as a good collector does.
"""

from __future__ import annotations

import signal
import socket
import ssl
import sys
from pathlib import Path

QUIET_S = 0.3


class Recorder:
    def __init__(self, port: int, directory: Path, receive_buffer: int, context: ssl.SSLContext | None) -> None:
        self._directory = directory
        self._context = context
        self._stopping = False
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if receive_buffer:
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self._listener.bind(("127.0.0.1", port))
        self._listener.listen()
        self._listener.settimeout(QUIET_S)
        signal.signal(signal.SIGTERM, self._stop)

    def _stop(self, _number: int, _frame: object) -> None:
        self._stopping = True

    def run(self) -> None:
        while not self._stopping:
            try:
                connection, _ = self._listener.accept()
            except socket.timeout:
                continue
            try:
                self._record(connection)
            except OSError as error:
                print(f"connection lost: {error}", file=sys.stderr, flush=True)

    def _record(self, connection: socket.socket) -> None:
        connection.settimeout(QUIET_S if self._context is None else 5)
        if self._context is not None:
            connection = self._context.wrap_socket(connection, server_side=True)
            connection.settimeout(QUIET_S)
        number = len(list(self._directory.glob("*.ipfix")))
        with connection, (self._directory / f"{number:06}.ipfix").open("wb", buffering=0) as file:
            while True:
                try:
                    data = connection.recv(1 << 16)
                except socket.timeout:
                    if self._stopping:
                        return
                    continue
                if not data:
                    return
                file.write(data)


def main() -> None:
    port, directory, *more = sys.argv[1:]
    context = None
    if len(more) > 1:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=more[2])
        context.load_cert_chain(more[1])
        context.verify_mode = ssl.CERT_REQUIRED
    Recorder(int(port), Path(directory), int(more[0]) if more else 0, context).run()


if __name__ == "__main__":
    main()
