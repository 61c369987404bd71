"""The kernel's counters of all interfaces, as others read them."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import pytest

from lab import frames as f
from lab.namespaces import Lab, in_namespace
from lab.taps import make_taps
from lab.wire import Sender
from netobs.kernel.link_stats import link_stats, qdisc_drops

pytestmark = pytest.mark.kernel

TAPS = 300
"""More than one answer of the kernel holds."""
FRAME = f.ethernet(f.IPV4, f.ipv4(f.UDP, f.udp(bytes(100))))


def by_proc(ns: str) -> dict[str, tuple[int, ...]]:
    """(rx_packets, tx_packets, rx_octets, tx_octets, rx_dropped, tx_dropped) by name, of proc(5)."""
    with in_namespace(ns):
        lines = Path("/proc/thread-self/net/dev").read_text(encoding="ascii").splitlines()[2:]
    numbers = {line.split(":")[0].strip(): [*map(int, line.split(":")[1].split())] for line in lines}
    return {name: tuple(each[at] for at in (1, 9, 0, 8, 3, 11)) for name, each in numbers.items()}


def test_all_interfaces_in_ascending_order(lab: Lab) -> None:
    near, far = lab.pair()
    make_taps(near.ns, [f"tap{number}" for number in range(TAPS)])
    with Sender(far) as sender, Sender(near) as back:
        sender.send(*[FRAME] * 7)
        back.send(*[FRAME] * 3)
    with in_namespace(near.ns):
        stats = link_stats()
    names = {each["ifindex"]: each["ifname"] for each in lab.links(near.ns)}
    assert stats["ifindex"].tolist() == sorted(names)
    assert len(stats) == TAPS + 2
    columns = ["rx_packets", "tx_packets", "rx_octets", "tx_octets", "rx_dropped", "tx_dropped"]
    found = {names[row["ifindex"]]: tuple(int(row[name]) for name in columns) for row in stats}
    assert found == by_proc(near.ns)
    assert found[near.name][:4] == (7, 3, 7 * len(FRAME), 3 * len(FRAME))


def test_drops_of_a_queue(lab: Lab) -> None:
    near, _ = lab.pair()
    lab.run(near.ns, ["tc", "qdisc", "add", "dev", near.name, "root", "blackhole"])
    with Sender(near) as sender:
        for _ in range(5):
            with contextlib.suppress(OSError):  # ENOBUFS: it was dropped
                sender.send(FRAME)
    with in_namespace(near.ns):
        drops = qdisc_drops()
    assert np.all(np.diff(drops["ifindex"].astype(int)) > 0)
    assert dict(zip(drops["ifindex"].tolist(), drops["dropped"].tolist()))[near.ifindex] == 5
