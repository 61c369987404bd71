"""What is wrong, by the state document: a line each, which ends with what to do."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from netobs.config.text import folded
from netobs.daemon.difference_warnings import LEAST_PACKETS, LEAST_SHARE, LESS, LESS_REMEDY, MORE, MORE_REMEDY
from netobs.daemon.reporter import NO_TEMPLATE_REMEDY, remedy_of, remedy_of_unsent

Tree = dict[str, Any]

RECENT_S = 600
"""A loss that has not moved for this long is over: it is in the account, and no problem any more."""
NEARLY_FULL = 0.9


def problems(state: Tree) -> Iterator[str]:
    """The problems in ``state``, the most general ones first."""
    now_s = state["at_s"]
    yield from _of_daemon(state)
    yield from _of_configuration(state["configuration"])
    yield from _of_interfaces(state)
    for reason, lost in state["ledger"]["reasons"].items():
        if lost["is_loss"] and _is_recent(lost, now_s):
            yield f"packets lost before a flow, {reason}: {_amount(lost)}; {remedy_of(reason)}"
    for collector in state["collectors"]:
        for problem in _of_collector(collector, now_s):
            yield f'collector "{collector["name"]}": {problem}'
    capture = state["packet_capture"]
    if capture is not None and capture["problem"]:
        yield f"packet capture: {capture['problem']}; see the log"


def _is_recent(lost: Tree, now_s: float) -> bool:
    return lost["last_s"] is not None and now_s - lost["last_s"] < RECENT_S


def _amount(lost: Tree) -> str:
    flows = f"{lost['flows']:,} flows with " if "flows" in lost else ""
    rate = f", {lost['packets_per_s']:,.0f}/s now" if lost["packets_per_s"] else ""
    return f"{flows}{lost['packets']:,} packets{rate}"


def _of_daemon(state: Tree) -> Iterator[str]:
    daemon = state["daemon"]
    if daemon["state"] != "running":
        yield f"the daemon is {daemon['state']}: not all of its work is done; ask again in a moment"
    used, most = daemon["descriptors"], daemon["max_descriptors"]
    if used is not None and used > NEARLY_FULL * most:
        yield f"{used:,} of {most:,} file descriptors are in use; raise LimitNOFILE= of the unit, or ulimit -n"


def _of_configuration(configuration: Tree) -> Iterator[str]:
    file, last = configuration["file"], configuration["reload"]
    if last is not None and last["failed"]:
        yield f"the last reload failed: {last['error']}; correct the file, then run netobs reload"
    elif configuration["is_newer"]:
        yield f"{file} was changed, and what runs is the former content; run netobs reload"
    if configuration["waits"]:
        yield f"{file}: {', '.join(configuration['waits'])}: the new value waits for the next start; restart netobs"


def _of_interfaces(state: Tree) -> Iterator[str]:
    if not state["interfaces"]:
        yield "no interface is measured; check capture.interfaces, and see the log"
    refused: dict[str, list[str]] = {}
    for each in state["not_measured"]:
        refused.setdefault(each["reason"], []).append(each["name"])
    for reason, names in refused.items():
        yield f"not measured: {folded(dict.fromkeys(names))}: {reason}; see netobs(8)"
    unlike: dict[str, list[str]] = {}
    for each in state["interfaces"]:
        for direction, its in each["directions"].items():
            if is_large_difference(its):
                what = MORE if its["difference"]["packets"] > 0 else LESS
                unlike.setdefault(what, []).append(f"{each['name']} {direction}")
    for what, hooks in unlike.items():
        yield f"{folded(hooks)}: {what.partition(',')[0]}; {MORE_REMEDY if what == MORE else LESS_REMEDY}"


def is_large_difference(direction: Tree) -> bool:
    """Whether the kernel's counters and netobs's are so unlike that the log warns, too."""
    if direction["difference"] is None:
        return False
    packets: int = direction["difference"]["packets"]
    counted: int = direction["kernel"]["packets"]
    return abs(packets) >= max(LEAST_PACKETS, LEAST_SHARE * counted)


def _of_collector(collector: Tree, now_s: float) -> Iterator[str]:
    error = f": {collector['last_error']['text']}" if collector["last_error"] else ""
    if collector["reach"] == "down":
        yield f"it cannot be reached{error}; check it, and the path to it"
    elif collector["reach"] == "suspect":
        yield f"it seems to get nothing{error}; check it, and the firewalls on the path"
    for reason, lost in collector["not_sent"].items():
        if _is_recent(lost, now_s):
            yield f"not sent, {reason}: {_amount(lost)}; {remedy_of_unsent(reason)}"
    if _is_recent(collector["no_template"], now_s):
        yield f"no template: {_amount(collector['no_template'])}; {NO_TEMPLATE_REMEDY}"
    spool = collector["spool"]
    if spool is not None and spool["bytes"] > NEARLY_FULL * spool["max_bytes"]:
        yield f"its spool is {spool['bytes'] / spool['max_bytes']:.0%} full; raise spool_max, or check the collector"
