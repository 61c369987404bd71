"""The page of `netobs status`, made of the state document and nothing else."""

from __future__ import annotations

import enum
from collections.abc import Iterator
from typing import Any, NamedTuple

from netobs.cli.units import ago, amount, clock_time, counted, duration, many, size
from netobs.config.text import folded

Tree = dict[str, Any]
MANY_LINES = 8
"""More ways to be attached than this are not told apart, unless each interface is asked for."""


class Tone(enum.Enum):
    """How a line looks on a terminal; the value is its SGR code."""

    PLAIN = ""
    TITLE = "1"
    GOOD = "32"
    BAD = "1;31"
    WARN = "33"
    FAINT = "2"


class Line(NamedTuple):
    """One line of the page."""

    text: str
    tone: Tone = Tone.PLAIN


def page(state: Tree, all_interfaces: bool = False) -> Iterator[Line]:
    """All lines, problems first. Times are those of ``state``."""
    yield from _problems(state["problems"])
    yield from _daemon(state)
    yield from _configuration(state)
    yield from _interfaces(state, all_interfaces)
    yield from _ledger(state)
    yield from _table(state)
    for collector in state["collectors"]:
        yield from _collector(collector, state["at_s"])
    for former in state["former_collectors"]:
        yield Line("")
        yield Line(former["name"], Tone.TITLE)
        yield from _account(former, state["at_s"])
    yield from _packet_capture(state)


def _problems(problems: list[str]) -> Iterator[Line]:
    if not problems:
        yield Line("no problems", Tone.GOOD)
        return
    yield Line(f"{many(len(problems), 'problems')}:", Tone.BAD)
    for each in problems:
        first, *more = each.split("\n")
        yield Line(f"  {first}", Tone.WARN)
        yield from (Line(f"    {line}", Tone.WARN) for line in more)


def _daemon(state: Tree) -> Iterator[Line]:
    daemon, now_s = state["daemon"], state["at_s"]
    yield Line("")
    since = f"since {clock_time(daemon['started_s'], now_s)} ({duration(now_s - daemon['started_s'])})"
    yield Line(f"netobs {daemon['version']}, pid {daemon['pid']}, {daemon['state']} {since}", Tone.TITLE)
    ready = "" if daemon["ready_s"] is None else f"ready after {duration(daemon['ready_s'] - daemon['started_s'])}, "
    memory = "" if daemon["resident_bytes"] is None else f"{size(daemon['resident_bytes'])} of memory, "
    used = "" if daemon["descriptors"] is None else f"{counted(daemon['descriptors'])} of "
    yield Line(f"  {ready}{memory}{duration(daemon['cpu_s'])} of CPU, "
               f"{used}{counted(daemon['max_descriptors'])} descriptors")  # fmt: skip
    loop = state["loop"]
    if loop["longest_silence_s"]:
        where = f", most of it in {loop['in']}" if loop["in"] else ""
        yield Line(f"  longest silence of the loop: {duration(loop['longest_silence_s'])}{where}")


def _configuration(state: Tree) -> Iterator[Line]:
    configuration, now_s = state["configuration"], state["at_s"]
    runs = {None: "cannot be read now", False: "is what runs", True: "was changed since it was read"}
    yield Line("")
    yield Line(f"configuration {configuration['file']}", Tone.TITLE)
    yield Line(f"  the file {runs[configuration['is_newer']]}")
    last = configuration["reload"]
    if last is None:
        yield Line("  no reload since the start")
    else:
        yield Line(f"  the last reload {'failed' if last['failed'] else 'succeeded'} {ago(last['ended_s'], now_s)}")
    if configuration["waits"]:
        yield Line(f"  at the next start: {', '.join(configuration['waits'])}")


def _interfaces(state: Tree, all_interfaces: bool) -> Iterator[Line]:
    yield Line("")
    yield Line(f"interfaces: {counted(len(state['interfaces']))}", Tone.TITLE)
    if all_interfaces:
        for each in state["interfaces"]:
            yield Line(f"  {_name(each)} (index {each['index']}): {_hooks(each)}")
            for direction, its in each["directions"].items():
                if its["kernel"] is not None:
                    counts = f"seen {amount(its['seen'])}; the kernel counts {amount(its['kernel'])}"
                    yield Line(f"    {direction}: {counts}{_difference(its)}")
    else:
        yield from _alike(state)
        yield from _counters(state)
    if any((each["of"] or 0) > 1 for one in state["interfaces"] for each in one["directions"].values()):
        yield Line("  netobs doctor names the other programs", Tone.FAINT)


def _difference(direction: Tree) -> str:
    packets = direction["difference"]["packets"]
    if not packets:
        return ""
    return f", {many(abs(packets), 'packets')} {'more' if packets > 0 else 'fewer'} than netobs expects"


def _counters(state: Tree) -> Iterator[Line]:
    """Whether the kernel counts on the hooks what netobs does."""
    hooks = [(f"{_name(each)} {direction}", its) for each in state["interfaces"]
             for direction, its in each["directions"].items()]  # fmt: skip
    known = [(name, its) for name, its in hooks if its["kernel"] is not None]
    unlike = [(name, its) for name, its in known if its["difference"]["packets"]]
    for name, its in unlike[:MANY_LINES]:
        counts = many(its["kernel"]["packets"], "packets")
        yield Line(f"  {name}: the kernel counts {counts}{_difference(its)}", Tone.WARN)
    if len(unlike) > MANY_LINES:
        yield Line(f"  and {counted(len(unlike) - MANY_LINES)} more with a difference", Tone.WARN)
    if known and not unlike:
        yield Line(f"  the kernel's counters agree with netobs's in {counted(len(known))} of {counted(len(hooks))} "
                   "directions", Tone.GOOD)  # fmt: skip


def _alike(state: Tree) -> Iterator[Line]:
    """Interfaces that are attached in the same way share a line."""
    alike: dict[str, list[str]] = {}
    for each in state["interfaces"]:
        alike.setdefault(_hooks(each), []).append(_name(each))
    for hooks, names in [*alike.items()][:MANY_LINES]:
        yield Line(f"  {folded(names)}: {hooks}")
    if len(alike) > MANY_LINES:
        rest = sum(len(names) for names in [*alike.values()][MANY_LINES:])
        yield Line(f"  and {counted(rest)} more, each as netobs status --interfaces tells", Tone.FAINT)


def _name(interface: Tree) -> str:
    return f"{interface['name']} in {interface['netns']}" if interface["netns"] else str(interface["name"])


def _hooks(interface: Tree) -> str:
    hooks = {direction: _hook(each) for direction, each in interface["directions"].items()}
    if len(hooks) > 1 and len(set(hooks.values())) == 1:
        return f"{' and '.join(hooks)} by {next(iter(hooks.values()))}"
    return "; ".join(f"{direction} by {how}" for direction, how in hooks.items())


def _hook(direction: Tree) -> str:
    position, of = direction["position"], direction["of"]
    if position is None:
        place = "order on the hook unknown"
    elif of == 1:
        place = "alone on the hook"
    else:
        place = f"{position} of {of} on the hook"
    return f"{direction['method']}, {place}"


def _moved(lost: Tree, now_s: float) -> str:
    if lost["first_s"] is None:
        return ""
    rate = lost["packets_per_s"]
    now = f", {rate:,.0f} packets/s now" if rate else ""
    return f"; first {ago(lost['first_s'], now_s)}, last {ago(lost['last_s'], now_s)}{now}"


def _ledger(state: Tree) -> Iterator[Line]:
    ledger, now_s = state["ledger"], state["at_s"]
    yield Line("")
    yield Line(f"packets seen: {amount(ledger['seen'])}", Tone.TITLE)
    for reason, lost in ledger["reasons"].items():
        if lost["packets"]:
            tone = Tone.WARN if lost["is_loss"] else Tone.PLAIN
            yield Line(f"  not in a flow, {reason}: {amount(lost)}{_moved(lost, now_s)}", tone)
    if not any(lost["packets"] for lost in ledger["reasons"].values() if lost["is_loss"]):
        yield Line("  none is lost before a flow", Tone.GOOD)
    if ledger["not_ip"]:
        kinds = ", ".join(f"{name} {counted(packets)}" for name, packets in ledger["not_ip"].items())
        yield Line(f"  not IP: {kinds}")


def _table(state: Tree) -> Iterator[Line]:
    table, cache = state["table"], state["flow_cache"]
    yield Line("")
    yield Line(f"flow table {table['name']}", Tone.TITLE)
    levels = ", ".join(f"{counted(flows)} in {level}" for level, flows in table["levels"].items())
    yield Line(
        f"  the last eviction found {levels or 'no level to count'}; room for {counted(table['max_flows'])} flows"
    )
    last = table["last_eviction_s"]
    took = "" if last is None else f", the last took {duration(last)}"
    yield Line(f"  {many(table['evictions'], 'evictions')}, one every {duration(table['interval_s'])}, "
               f"{counted(table['emergency_evictions'])} of them because the table was full{took}")  # fmt: skip
    yield Line(f"  {many(table['ring_packets'], 'packets')} by the ring buffer")
    ended = ", ".join(f"{counted(flows)} {reason}" for reason, flows in cache["ended"].items() if flows)
    yield Line(f"  flow cache: {counted(cache['flows'])} of {counted(cache['max_flows'])} flows; "
               f"exported: {ended or 'none'}")  # fmt: skip


def _collector(collector: Tree, now_s: float) -> Iterator[Line]:
    reach, name = collector["reach"], collector["name"]
    where = collector["address"] or f"{collector['host']} port {collector['port']}"
    protocol = f"{collector['protocol']} over {collector['transport']}"
    yield Line("")
    yield Line(f'collector "{name}", {where}, {protocol}, template {collector["template"]}', Tone.TITLE)
    since = f"since {clock_time(collector['reach_since_s'], now_s)}"
    yield Line(f"  {reach} {since}", Tone.GOOD if reach == "up" else Tone.WARN)
    yield from _account(collector, now_s)
    queue = f"{size(collector['queue_bytes'])} of {size(collector['max_queue_bytes'])} in memory"
    yield Line(f"  waiting: {amount(collector['waiting'])}; {queue}")
    spool = collector["spool"]
    if spool is not None:
        share = f"{size(spool['bytes'])} of {size(spool['max_bytes'])}"
        yield Line(f"  in the spool: {amount(spool)}; {share}")
    told = f"{many(collector['messages'], 'Messages')} with data, {many(collector['reconnects'], 'reconnects')}"
    told += f", {many(collector['failed_attempts'], 'failed attempts')}"
    yield Line(f"  {told}; next Sequence Number {collector['sequence']}")
    error = collector["last_error"]
    if error is not None:
        yield Line(f"  last error {ago(error['at_s'], now_s)}: {error['text']}")


def _account(collector: Tree, now_s: float) -> Iterator[Line]:
    yield Line(f"  sent: {amount(collector['sent'])}")
    for reason, lost in collector["not_sent"].items():
        yield Line(f"  not sent, {reason}: {amount(lost)}{_moved(lost, now_s)}", Tone.WARN)
    if collector["no_template"]["flows"]:
        lost = collector["no_template"]
        yield Line(f"  no template for {amount(lost)}{_moved(lost, now_s)}", Tone.WARN)
    others = {
        "resent": "sent again, as not acknowledged",
        "taken_over": "taken over from an earlier run",
        "moved_in": "taken over from another collector",
        "moved_away": "given to another collector",
    }
    for key, words in others.items():
        if collector[key]["flows"]:
            yield Line(f"  {words}: {amount(collector[key])}")


def _packet_capture(state: Tree) -> Iterator[Line]:
    capture, now_s = state["packet_capture"], state["at_s"]
    if capture is None:
        return
    yield Line("")
    yield Line("packet capture", Tone.TITLE)
    if capture["listening_s"] is None:
        yield Line(f"  not listening at {capture['listen']}", Tone.WARN)
    else:
        yield Line(f"  listens at {capture['listen']} since {clock_time(capture['listening_s'], now_s)}")
    if capture["clients"] is not None:
        sent = f"{many(capture['sent_packets'], 'packets')} sent"
        yield Line(f"  {many(capture['clients'], 'clients')} now, {sent} to all clients ever")
    for reason, packets in capture["lost"].items():
        if packets:
            yield Line(f"  {many(packets, 'packets')} did not reach a client: {reason}", Tone.WARN)
