"""AF_XDP sockets take packets from a network card past the host's network stack.

/proc/net/protocols counts them. The kernel would list them by sock_diag(7), but may load a module for that, which the
doctor does not cause.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from netobs.doctor.finding import Finding
from netobs.kernel import host

_PROTOCOLS = Path("/proc/thread-self/net/protocols")


def count(protocols: Path = _PROTOCOLS) -> int:
    """How many there are in this network namespace."""
    for line in host.read_if_there(str(protocols)).splitlines():
        words = line.split()
        if words[:1] == ["XDP"]:
            return int(words[2])
    return 0


def findings() -> Iterator[Finding]:
    """A warning if there are any."""
    number = count()
    if number:
        yield Finding(
            "af-xdp", "warning", f"AF_XDP sockets (as of DPDK, Open vSwitch, packet generators): {number}",
            netobs="packets that they get, and those that they send, are not in any flow",
            remedy="see which with ss -x --xdp; measure at the switch",
        )  # fmt: skip
