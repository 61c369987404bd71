"""What is said of each interface: who else is on its hooks, and what keeps packets from them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from netobs.config import CaptureConfig
from netobs.doctor.finding import Finding, not_seen
from netobs.doctor.hooks import FLOWS, Entry, Hooks
from netobs.doctor.links import Link
from netobs.doctor.offloads import GRO, HARDWARE_GRO, HARDWARE_TC, LRO, features
from netobs.kernel import inventory
from netobs.kernel.many import SWITCH
from netobs.kernel.observation_points import DIRECTIONS

ON_TOP = ("vlan", "macvlan", "ipvlan", "macvtap", "ipvtap", "macsec")
"""Kinds of interfaces whose packets pass the interface below, too."""
BEFORE = {"tcx": "tcx-foreign-before", "clsact": "clsact-foreign-before"}
AFTER = {"tcx": "tcx-foreign-after", "clsact": "clsact-foreign-after"}
"""The findings about somebody else's program, by hook."""
_FORWARDS = ("bridge", "vrf")
"""Kinds of masters that carry what is for the host itself, and not all that their ports do."""
_NEVER_BEFORE = "netobs cannot see what happens before its program"


class Seen(NamedTuple):
    """An interface as it is. ``selected``: whether the configuration wants it; ``hooks``: entries by direction."""

    link: Link
    selected: bool
    qdisc: str
    hooks: dict[str, list[Entry]]
    offloads: dict[str, bool]

    def as_json(self) -> dict[str, Any]:
        """For ``--json``."""
        link = self.link
        return {
            "name": link.name,
            "index": link.interface.index,
            "kind": link.interface.kind or None,
            "selected": self.selected,
            "measurable": link.interface.is_measurable,
            "qdisc": self.qdisc or None,
            **{direction: [entry.as_json() for entry in entries] for direction, entries in self.hooks.items()},
            "offloads": self.offloads,
            "switch_id": link.switch_id or None,
            "port_name": link.port_name or None,
            "virtual_functions": link.virtual_functions,
            "master": link.master or None,
            "lower": link.lower or None,
        }

    def hook_line(self, direction: str) -> str:
        """Who is on the hooks of a direction."""
        return " -> ".join(map(str, self.hooks[direction])) or "nobody"


def look(config: CaptureConfig, links: Sequence[Link], hooks: Hooks) -> list[Seen]:
    """Each of the interfaces. Hooks and offloads are read of the selected ones only."""
    selector, found = config.selector, []
    for link in links:
        is_wanted = selector.matches(link.name) and link.interface.is_measurable
        entries = {way: hooks.entries(link, way) if is_wanted else [] for way in DIRECTIONS["both"]}
        offloads = features(link.name) if is_wanted else {}
        found.append(Seen(link, is_wanted, hooks.qdisc(link), entries, offloads))
    _add_holders([entries for each in found for entries in each.hooks.values()])
    return found


def _add_holders(hooks: Sequence[list[Entry]]) -> None:
    """Whose the programs of others are."""
    foreign = {entry.number for entries in hooks for entry in entries if entry.number and not entry.ours}
    holders = inventory.holders(foreign) if foreign else {}
    for entries in hooks:
        entries[:] = [entry._replace(holder=holders.get(entry.number, "")) for entry in entries]


def findings(config: CaptureConfig, seen: Sequence[Seen], hooks: Hooks, is_running: bool) -> Iterator[Finding]:
    """``is_running``: whether a daemon answers; then each selected interface should have its program."""
    wanted = [each for each in seen if each.selected]
    is_running |= any(entry.ours == FLOWS for each in wanted for way in each.hooks for entry in each.hooks[way])
    for each in wanted:
        for direction in DIRECTIONS[config.direction]:
            yield from _hook(config, each, direction, is_running, hooks)
        yield from _qdisc(config, each, hooks)
        yield from offloads_of(each)
        yield from bypasses(each.link)
    yield from twice(wanted)
    if wanted and not hooks.knows_tcx:
        yield not_seen("the programs on TCX hooks", "with CAP_NET_ADMIN, or as root")
    elif wanted and not hooks.knows_programs:
        yield not_seen("the names of BPF programs, and which of them are links", "as root")


def left_behind(seen: Sequence[Seen]) -> Iterator[Finding]:
    """No daemon answers; are there programs of one?"""
    names = [
        each.link.name for each in seen if any(entry.ours == FLOWS for way in each.hooks.values() for entry in way)
    ]
    if names:
        yield Finding(
            "programs-without-daemon", "warning", "programs of netobs are attached, and no daemon answers",
            tuple(names), "they count on; after a crash the next daemon takes them and their flows over",
            "look whether it runs with another file: netobs --conf FILE doctor; else start it",
        )  # fmt: skip


def _hook(config: CaptureConfig, seen: Seen, direction: str, is_running: bool, hooks: Hooks) -> Iterator[Finding]:
    where, entries = (f"{seen.link.name} {direction}",), seen.hooks[direction]
    ours = [at for at, entry in enumerate(entries) if entry.ours == FLOWS]
    is_sure = hooks.knows_tcx and all(entry.name or entry.kind != "bpf" for entry in entries)
    if not ours and is_running and is_sure:
        yield Finding(
            "not-attached", "problem", "no program of netobs is on the hook, although this interface is selected",
            where, "the daemon tries again every 5 s, and logs what the kernel refuses",
            "look for a line about the interface in the log of the daemon; its configuration may be another one",
        )  # fmt: skip
    if len(ours) > 1:
        yield Finding(
            "attached-twice", "problem", f"{len(ours)} programs of netobs count each packet", where,
            "two daemons export every packet of the interface, each for itself",
            "give each daemon its own interfaces, or stop one of them",
        )  # fmt: skip
    if not ours and not is_sure and is_running:
        return  # any of them may be ours
    for at, entry in enumerate(entries):
        if not entry.ours:
            verb = "runs" if ours else "would run"
            yield _foreign(entry, where, _is_before(config, at, ours, entry), verb)
        if entry.in_hardware:
            yield Finding(
                "hardware-filter", "warning", f"{entry} is in the network card", where,
                "packets that the card handles by itself are not in any flow",
                "set skip_hw on the filter, or switch hw-tc-offload off, if they must be counted",
            )  # fmt: skip


def _is_before(config: CaptureConfig, at: int, ours: Sequence[int], entry: Entry) -> bool:
    """Whether the entry at place ``at`` comes before our program, or would if that were there."""
    return entry.hook == "xdp" or (at < ours[0] if ours else config.anchor == "last")


def _foreign(entry: Entry, where: tuple[str, ...], is_before: bool, verb: str) -> Finding:
    what = "program" if entry.kind == "bpf" else "filter"
    if entry.hook == "xdp":
        return Finding(
            "xdp-program", "warning", f"XDP {what} {_named(entry)} gets every packet before netobs", where,
            f"packets that it drops, redirects or gives to an AF_XDP socket are not in any flow: {_NEVER_BEFORE}",
            "compare the counters of the program, or of the interface (ip -s link), with those of netobs",
        )  # fmt: skip
    hook = "tcx" if entry.hook == "tcx" else "clsact"
    words = f"TCX {what} {_named(entry)}" if hook == "tcx" else f"{what} {_named(entry)} of the {entry.hook} qdisc"
    if is_before:
        return Finding(
            BEFORE[hook], "warning", f"{words} {verb} before netobs", where,
            f"the drops of this {what} are not seen by netobs, nor what it redirects or accepts: {_NEVER_BEFORE}",
            'stop and start netobs with capture.anchor = "first" (a restart keeps its place), or have the other attach '
            "behind it",
        )  # fmt: skip
    return Finding(
        AFTER[hook], "note", f"{words} {verb} behind netobs", where,
        "flows include packets that it drops or redirects",
        'set capture.anchor = "last" to leave these out',
    )  # fmt: skip


def _named(entry: Entry) -> str:
    name = f'"{entry.name}"' if entry.name else "without a visible name" if entry.number else entry.kind
    number = [f"number {entry.number}", f"tag {entry.tag}" if entry.tag else ""] if entry.number else []
    about = [*number, entry.detail, f"attached by a {entry.owner}" if entry.owner == "link" else ""]
    about.append(f"of {entry.holder}" if entry.holder else "")
    text = ", ".join(filter(None, about))
    return f"{name} ({text})" if text else name


def _qdisc(config: CaptureConfig, seen: Seen, hooks: Hooks) -> Iterator[Finding]:
    """Where the classic ingress qdisc is, there is no clsact, and so no egress hook for filters."""
    if seen.qdisc != "ingress":
        return
    by_filter = config.attach == "tc" or hooks.has_tcx is False
    yield Finding(
        "ingress-qdisc", "warning" if by_filter else "note",
        "a classic ingress qdisc (of policing, as by Open vSwitch or libvirt) keeps clsact off the interface",
        (seen.link.name,),
        "packets that leave are not measured" if by_filter else "it attaches by TCX there, which needs no clsact",
        "replace it by clsact, which has both hooks, or use Linux 6.6 or newer and capture.attach = \"auto\""
        if by_filter else "",
    )  # fmt: skip


def offloads_of(seen: Seen) -> Iterator[Finding]:
    """What the network card does with packets before the hooks."""
    where, on = (seen.link.name,), {name for name, is_on in seen.offloads.items() if is_on}
    if HARDWARE_TC in on:
        yield Finding(
            "hw-tc-offload", "warning", "hw-tc-offload is on: the network card may forward flows by itself", where,
            "packets that never reach the host are not in any flow; they are in the counters of the card",
            "ethtool -K INTERFACE hw-tc-offload off, or measure at the switch",
        )  # fmt: skip
    if LRO in on:
        yield Finding(
            "lro", "warning", "LRO merges packets in the network card, which does not always say how many", where,
            "octets are right; packets may count too low, as in ip -s link",
            "ethtool -K INTERFACE lro off; GRO does the same and keeps the count",
        )  # fmt: skip
    merges = sorted(on & {GRO, HARDWARE_GRO})
    if merges:
        yield Finding(
            "gro", "ok", f"{' and '.join(merges)}: the kernel hands over several packets as one", where,
            "netobs counts each packet of the wire, with its own header; tcpdump and ip -s link may show fewer",
        )  # fmt: skip


def bypasses(link: Link) -> Iterator[Finding]:
    """What goes past the host in the network card."""
    where = (link.name,)
    if link.virtual_functions:
        yield Finding(
            "sriov", "warning", f"the network card has {link.virtual_functions} SR-IOV virtual functions", where,
            "traffic of guests that use them goes past the host, and is not in any flow",
            "measure in the guests or at the switch, or use tap devices or switchdev representors",
        )  # fmt: skip
    if link.switch_id:
        port = f", port {link.port_name}" if link.port_name else ""
        yield Finding(
            "switchdev", "warning", f"the interface is a port of a hardware switch (switchdev{port})", where,
            "flows that the switch forwards by itself show their first packets only",
            "switch the offload of flows off, or measure at the switch",
        )  # fmt: skip


def twice(wanted: Sequence[Seen]) -> Iterator[Finding]:
    """Interfaces that show the same packets, both selected."""
    by_index: Mapping[int, Link] = {each.link.interface.index: each.link for each in wanted}
    for each in wanted:
        link = each.link
        master, lower = by_index.get(link.master), by_index.get(link.lower)
        if master is not None and master.interface.kind != SWITCH:  # no packet passes that one
            kind = master.interface.kind
            what = f"it is a port of {master.name} ({kind or 'of an unknown kind'}), which is selected, too"
            yield _counted_twice(link, "note" if kind in _FORWARDS else "warning", what)
        if lower is not None and link.interface.kind in ON_TOP:
            kind = link.interface.kind
            yield _counted_twice(link, "warning", f"it lies on {lower.name} ({kind}), which is selected, too")


def _counted_twice(link: Link, severity: str, what: str) -> Finding:
    return Finding(
        "counted-twice", severity, what, (link.name,),
        "a packet that passes both is counted on each of them: sums over interfaces are too high",
        "name one of them in capture.exclude, or have the collector filter by interface",
    )  # fmt: skip
