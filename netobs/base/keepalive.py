"""TCP keepalive, for connections to collectors and to clients."""

from __future__ import annotations

import socket


def notice_dead_peer(sock: socket.socket, timeout_ms: int) -> None:
    """Let the kernel end a connection whose peer disappeared silently, or acknowledges nothing for ``timeout_ms``."""
    for level, option, value in (
        (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
        (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 30),
        (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10),
        (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
        (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, timeout_ms),
    ):
        sock.setsockopt(level, option, value)
