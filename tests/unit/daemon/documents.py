"""A state document as a daemon makes it, for the tests of those who show it."""

from __future__ import annotations

from typing import Any

import numpy as np

from netobs.daemon.compared import Compared
from netobs.daemon.comparison import Difference
from netobs.daemon.hooks import DIRECTIONS
from netobs.daemon.interface_metrics import Hook
from netobs.datapath.interface_counts import count_key

MOVING = {"first_s": 1.7e9, "last_s": 1.7e9 + 60, "packets_per_s": 0.5}


def interface(name: str, index: int, netns: str = "", packets: int = 1000) -> dict[str, Any]:
    """An interface with both directions."""
    way = {
        "method": "tcx",
        "position": 1,
        "of": 2,
        "seen": {"packets": packets, "octets": packets * 900},
        "skbs": {"packets": packets // 2, "octets": packets * 914},
        "kernel": {"packets": packets, "octets": packets * 914},
        "difference": {"packets": packets // 100, "octets": 0},
    }
    return {"name": name, "index": index, "netns": netns, "directions": {"ingress": dict(way), "egress": dict(way)}}


def columns(interfaces: list[dict[str, Any]]) -> tuple[list[Hook], Compared]:
    """The hooks of ``interfaces``, and what is known of them, as the daemon has them before it makes the document."""
    numbers = {name: number for number, name in enumerate(dict.fromkeys(["", *(each["netns"] for each in interfaces)]))}
    listed = sorted(
        (count_key(numbers[each["netns"]], each["index"], DIRECTIONS[way]), each["netns"], each["name"], its)
        for each in interfaces
        for way, its in each["directions"].items()
    )
    hooks = [Hook(key, netns, name, its["method"]) for key, netns, name, its in listed]
    known = [(key, its) for key, _, _, its in listed if its["seen"]]
    seen, skbs, kernel = (
        np.array([[its[name]["packets"], its[name]["octets"]] for _, its in known], "<i8").reshape(-1, 2)
        for name in ("seen", "skbs", "kernel")
    )
    differences = np.array([[its["difference"]["packets"], 0, 0] for _, its in known], "<i8").reshape(-1, 3)
    return hooks, Compared(np.array([key for key, _ in known], "<u8"), seen, skbs, kernel, Difference(*differences.T))


def amount(flows: int, packets: int, octets: int) -> dict[str, int]:
    """Flows, and what they carry."""
    return {"flows": flows, "packets": packets, "octets": octets}


NONE = amount(0, 0, 0)
HISTOGRAM = {"bounds": [0.001, 0.01, 0.1], "counts": [10, 2, 0, 1], "sum": 0.5}


def collector(name: str, reach: str = "up") -> dict[str, Any]:
    """A collector with a spool, whose account adds up."""
    return {
        "name": name,
        "address": "192.0.2.10:4739",
        "protocol": "ipfix",
        "transport": "tcp",
        "template": "default",
        "reach": reach,
        "seen": amount(100, 1000, 900_000),
        "sent": amount(90, 900, 810_000),
        "exported": amount(95, 950, 855_000),
        "not_sent": {"queue_full": {**amount(2, 20, 18_000), **MOVING}},
        "no_template": {**amount(1, 10, 9_000), **MOVING},
        "waiting": amount(3, 30, 27_000),
        "spooled": amount(5, 50, 45_000),
        "taken_over": NONE,
        "moved_in": NONE,
        "moved_away": NONE,
        "resent": amount(5, 50, 45_000),
        "messages": 7,
        "template_messages": 2,
        "reconnects": 1,
        "failed_attempts": 4,
        "queue_bytes": 300,
        "spool": {**amount(5, 50, 45_000), "bytes": 4096, "max_bytes": 1 << 30},
        "sequence": 90,
        "last_error": None,
    }


DOCUMENT: dict[str, Any] = {
    "version": 1,
    "daemon": {
        "version": "1.2.3",
        "pid": 1,
        "started_s": 1.7e9,
        "ready_s": 1.7e9 + 0.4,
        "cpu_s": 12.5,
        "resident_bytes": 50_000_000,
        "descriptors": 40,
        "max_descriptors": 65536,
    },
    "configuration": {
        "file": "/etc/netobs.toml",
        "is_newer": True,
        "waits": ["[capture] pin"],
        "reload": {"ended_s": 1.7e9 + 100, "failed": False, "error": None},
    },
    "interfaces": [interface("eth0", 2), interface("bond0", 3)],
    "table": {
        "name": "percpu_array",
        "max_flows": 65536,
        "levels": {"slots": 92, "overflow": 0},
        "evictions": 412,
        "emergency_evictions": 1,
        "ring_packets": 5,
        "interval_s": 5.0,
        "last_eviction_s": 0.004,
        "eviction_seconds": HISTOGRAM,
        "grace_seconds": HISTOGRAM,
    },
    "loop": {"longest_silence_s": 0.031, "in": "Evictions._on_interval"},
    "events": {"clock_step": 2, "hook_removed": 0, "loop_silence": 1},
    "ledger": {
        "seen": {"packets": 1020, "octets": 900_000},
        "reasons": {
            "not_ip": {"packets": 3, "octets": 180, "is_loss": False, **MOVING},
            "ring_full": {"packets": 7, "octets": 6300, "is_loss": True, **MOVING},
        },
        "not_ip": {"ARP 0x0806": 3},
    },
    "flow_cache": {
        "flows": 388,
        "max_flows": 1_000_000,
        "ended": {"idle timeout": 90, "active timeout": 10},
        "taken": amount(120, 1010, 909_000),
        "handed_out": amount(100, 1000, 900_000),
    },
    "collectors": [collector("main"), collector("spare", "down")],
    "former_collectors": [],
    "packet_capture": {"clients": 2, "sent_packets": 90, "lost": {"queue_full": 5, "buffer_full": 0}},
}
