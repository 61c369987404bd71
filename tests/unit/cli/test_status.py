"""The page of `netobs status`, from a state document."""

from __future__ import annotations

import copy
import io
import time
from collections.abc import Iterator
from typing import Any

import pytest

from netobs.cli import units
from netobs.cli.status import has_colours, shown
from netobs.cli.status_page import Line, Tone, page
from netobs.daemon.problems import RECENT_S, problems

NOW_S = 1_800_000_000.0
NOTHING = {"flows": 0, "packets": 0, "octets": 0}
NEVER = {"first_s": None, "last_s": None, "packets_per_s": None}
LOST = {"packets": 1200, "octets": 90_000, "first_s": NOW_S - 3600, "last_s": NOW_S - 5, "packets_per_s": 12.5}
UNKNOWN = dict.fromkeys(("seen", "skbs", "kernel", "difference"))
HOOK = {"method": "tcx", "position": 1, "of": 1, **UNKNOWN}
Tree = dict[str, Any]


@pytest.fixture(autouse=True)
def _utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def interface(name: str, **directions: Tree) -> Tree:
    both = directions or {"ingress": HOOK, "egress": HOOK}
    return {"name": name, "index": 1, "netns": "", "directions": both}


def collector(**changed: object) -> Tree:
    tallies = dict.fromkeys(("waiting", "taken_over", "moved_in", "moved_away", "resent"), NOTHING)
    return {
        "name": "one", "host": "192.0.2.1", "port": 4739, "address": "192.0.2.1:4739", "protocol": "ipfix",
        "transport": "udp", "template": "default", "reach": "up", "reach_since_s": NOW_S - 60, "not_sent": {},
        "sent": {"flows": 3, "packets": 7, "octets": 1_234_567}, "no_template": {**NOTHING, **NEVER}, **tallies,
        "queue_bytes": 0, "max_queue_bytes": 1 << 26, "spool": None, "messages": 2, "reconnects": 0,
        "failed_attempts": 0, "sequence": 12, "last_error": None, **changed,
    }  # fmt: skip


STATE: Tree = {
    "version": 1,
    "at_s": NOW_S,
    "daemon": {"version": "1.2", "pid": 7, "state": "running", "started_s": NOW_S - 90_000, "ready_s": NOW_S - 89_999,
               "cpu_s": 65.0, "resident_bytes": 43_000_000, "descriptors": 40, "max_descriptors": 1024},
    "configuration": {"file": "/etc/netobs.toml", "is_newer": False, "waits": [], "reload": None},
    "interfaces": [interface("eth0")],
    "not_measured": [],
    "table": {"name": "percpu_array", "max_flows": 65_536, "levels": {"slots": 12, "overflow": 0}, "evictions": 9,
              "emergency_evictions": 1, "ring_packets": 0, "interval_s": 5.0, "last_eviction_s": 0.012},
    "loop": {"longest_silence_s": 0.04, "in": "Evictions._on_interval"},
    "ledger": {"seen": {"packets": 10_000, "octets": 5_000_000}, "not_ip": {"ARP 0x0806": 3}, "reasons": {
        "not_ip": {"packets": 3, "octets": 180, "is_loss": False, **NEVER},
        "ring_full": {"packets": 0, "octets": 0, "is_loss": True, **NEVER}}},
    "flow_cache": {"flows": 5, "max_flows": 1000, "ended": {"idle timeout": 4, "active timeout": 0}},
    "collectors": [collector()],
    "former_collectors": [],
    "packet_capture": None,
    "problems": [],
}  # fmt: skip


def state(**changed: object) -> Tree:
    made = {**copy.deepcopy(STATE), **changed}
    return {**made, "problems": list(problems(made))}


def text(made: Tree, all_interfaces: bool = False) -> str:
    return "\n".join(line.text for line in page(made, all_interfaces))


def test_all_is_well() -> None:
    assert (
        text(state())
        == """\
no problems

netobs 1.2, pid 7, running since 2027-01-14 07:00:00 (1 d 1 h)
  ready after 1 s, 41.0 MiB of memory, 1 min 5 s of CPU, 40 of 1,024 descriptors
  longest silence of the loop: 40 ms, most of it in Evictions._on_interval

configuration /etc/netobs.toml
  the file is what runs
  no reload since the start

interfaces: 1
  eth0: ingress and egress by tcx, alone on the hook

packets seen: 10,000 packets, 5,000,000 octets (5.00 MB)
  not in a flow, not_ip: 3 packets, 180 octets
  none is lost before a flow
  not IP: ARP 0x0806 3

flow table percpu_array
  the last eviction found 12 in slots, 0 in overflow; room for 65,536 flows
  9 evictions, one every 5 s, 1 of them because the table was full, the last took 12 ms
  0 packets by the ring buffer
  flow cache: 5 of 1,000 flows; exported: 4 idle timeout

collector "one", 192.0.2.1:4739, ipfix over udp, template default
  up since 07:59:00
  sent: 3 flows, 7 packets, 1,234,567 octets (1.23 MB)
  waiting: 0 flows, 0 packets, 0 octets; 0 bytes of 64.0 MiB in memory
  2 Messages with data, 0 reconnects, 0 failed attempts; next Sequence Number 12"""
    )


def test_problems_come_first() -> None:
    ledger = {**STATE["ledger"], "reasons": {"ring_full": {**LOST, "is_loss": True}}}
    down = collector(reach="down", last_error={"text": "Connection refused", "at_s": NOW_S - 3})
    lines = text(state(ledger=ledger, collectors=[down])).split("\n")
    assert lines[0] == "2 problems:"
    assert lines[1].startswith("  packets lost before a flow, ring_full: 1,200 packets, 12/s now; raise capture.max_")
    assert lines[2].startswith('  collector "one": it cannot be reached: Connection refused; check it')
    assert (
        "  not in a flow, ring_full: 1,200 packets, 90,000 octets (90.0 kB); first 1 h ago (07:00:00), "
        "last 5 s ago (07:59:55), 12 packets/s now"
    ) in lines
    assert "  last error 3 s ago (07:59:57): Connection refused" in lines


WRONG: list[tuple[Tree, str]] = [
    ({"daemon": {**STATE["daemon"], "state": "starting"}}, "the daemon is starting"),
    ({"daemon": {**STATE["daemon"], "descriptors": 1000}}, "1,000 of 1,024 file descriptors are in use"),
    ({"configuration": {**STATE["configuration"], "is_newer": True}}, "was changed, and what runs is the former"),
    ({"configuration": {**STATE["configuration"], "waits": ["[capture] pin"]}}, "[capture] pin: the new value waits"),
    ({"configuration": {**STATE["configuration"], "reload": {"ended_s": NOW_S, "failed": True, "error": "why"}}},
     "the last reload failed: why"),
    ({"interfaces": []}, "no interface is measured"),
    ({"not_measured": [{"name": "tap1", "netns": "", "direction": way, "reason": "why"} for way in ("in", "out")]},
     "not measured: tap1: why"),
    ({"collectors": [collector(reach="suspect")]}, 'collector "one": it seems to get nothing'),
    ({"collectors": [collector(not_sent={"closed": {"flows": 2, **LOST}})]},
     'collector "one": not sent, closed: 2 flows with 1,200 packets'),
    ({"collectors": [collector(no_template={"flows": 2, **LOST})]}, 'collector "one": no template: 2 flows with'),
    ({"collectors": [collector(spool={**NOTHING, "bytes": 95, "max_bytes": 100})]}, "its spool is 95% full"),
    ({"packet_capture": {"listen": "/x", "listening_s": None, "problem": "why", "clients": None, "lost": {}}},
     "packet capture: why"),
]  # fmt: skip


@pytest.mark.parametrize(("changed", "said"), WRONG, ids=[said for _, said in WRONG])
def test_each_problem(changed: Tree, said: str) -> None:
    (problem,) = state(**changed)["problems"]
    assert said in problem
    assert problem.count("\n") == 0
    assert text(state(**changed)).startswith("1 problem:\n")


def test_a_loss_that_has_ended_is_no_problem() -> None:
    old = {**LOST, "last_s": NOW_S - RECENT_S, "is_loss": True}
    made = state(ledger={**STATE["ledger"], "reasons": {"ring_full": old}})
    assert made["problems"] == []
    assert "not in a flow, ring_full: 1,200 packets" in text(made)


def test_interfaces_that_are_attached_alike_share_a_line() -> None:
    second = {**HOOK, "method": "tc", "position": 2, "of": 3}
    names = ["eth0", "bond0", *(f"tap{number}" for number in range(512))]
    interfaces = [interface(name) for name in names] + [interface("eth1", ingress=second)]
    made = state(interfaces=interfaces)
    assert """\
interfaces: 515
  eth0, bond0 and 512 taps: ingress and egress by tcx, alone on the hook
  eth1: ingress by tc, 2 of 3 on the hook
  netobs doctor names the other programs
""" in text(made)
    assert "  tap511 (index 1): ingress and egress by tcx, alone on the hook\n" in text(made, all_interfaces=True)


def counted(packets: int, difference: int) -> Tree:
    kernel = {"packets": packets, "octets": 100 * packets}
    seen = {"packets": packets - difference, "octets": 80 * packets}
    return {**HOOK, "seen": seen, "skbs": seen, "kernel": kernel, "difference": {"packets": difference, "octets": 0}}


def test_the_counters_of_the_kernel() -> None:
    alike = interface("eth0", ingress=counted(10_000, 0), egress=HOOK)
    assert "  the kernel's counters agree with netobs's in 1 of 2 directions\n" in text(state(interfaces=[alike]))
    made = state(interfaces=[alike, interface("eth1", ingress=counted(40_000, 399), egress=counted(40_000, -400))])
    page = text(made)
    assert "  eth1 ingress: the kernel counts 40,000 packets, 399 packets more than netobs expects\n" in page
    assert "  eth1 egress: the kernel counts 40,000 packets, 400 packets fewer than netobs expects\n" in page
    (problem,) = made["problems"]
    assert problem.startswith("eth1 egress: netobs sees packets there that the kernel does not count; a TC program")
    page = text(made, all_interfaces=True)
    assert "    ingress: seen 39,601 packets, 3,200,000 octets (3.20 MB); the kernel counts 40,000 packets" in page


def test_a_page_has_a_bound() -> None:
    interfaces = [interface(f"eth{of}", ingress={**HOOK, "position": of, "of": 99}) for of in range(1, 60)]
    assert "  and 51 more, each as netobs status --interfaces tells\n" in text(state(interfaces=interfaces))


def test_colours() -> None:
    assert shown(Line("all", Tone.GOOD), True) == "\x1b[32mall\x1b[0m"
    assert shown(Line("all", Tone.GOOD), False) == shown(Line("all"), True) == "all"
    assert shown(Line("tap\x1b[31m\n"), False) == "tap\\x1b[31m\\n"
    assert not has_colours(io.StringIO())


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.0004, "0 ms"), (0.04, "40 ms"), (1.5, "1 s"), (59.9, "59 s"), (60, "1 min"), (61, "1 min 1 s"),
     (3600, "1 h"), (3660, "1 h 1 min"), (86_399, "23 h 59 min"), (90_000, "1 d 1 h"), (864_000, "10 d")],
)  # fmt: skip
def test_durations(seconds: float, said: str) -> None:
    assert units.duration(seconds) == said


@pytest.mark.parametrize(
    ("number", "said"),
    [(0, "0"), (999, "999"), (1000, "1.00 k"), (12_345, "12.3 k"), (123_456, "123 k"), (999_499, "999 k"),
     (999_500, "1.00 M"), (1_234_567_890, "1.23 G"), (0.5, "0.50")],
)  # fmt: skip
def test_numbers_in_short(number: float, said: str) -> None:
    assert units.short(number) == said


def test_sizes() -> None:
    assert [units.size(number) for number in (0, 1023, 1024, 41_000_000, 1 << 30)] == [
        "0 bytes", "1023 bytes", "1.0 KiB", "39.1 MiB", "1.0 GiB",
    ]  # fmt: skip
