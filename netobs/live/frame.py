"""One frame: the flows of a filter in groups, the first ones by rate, and the sums over all of them, for JSON."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Any, Callable

import numpy as np

from netobs.base.clock import NS_PER_S
from netobs.flow.interface_names import InterfaceTable
from netobs.flow.records import Records, take
from netobs.live.columns import ICMP, Groups, Indices, Integers, group, matches, networks, words_of
from netobs.live.filters import PROTOCOLS
from netobs.live.flows import Flows, Mark
from netobs.live.query import SORT, Query

if TYPE_CHECKING:
    import numpy.typing as npt

DIRECTIONS = ("ingress", "egress")
_PROTOCOL_NAMES = {number: name.upper().replace("ICMP6", "ICMPv6") for name, number in PROTOCOLS.items()}


def frame(flows: Flows, mark: Mark, query: Query, names: InterfaceTable) -> dict[str, Any]:
    """What a client with ``mark`` sees of ``flows``. Rates are null as long as there was one look only."""
    numbers = _chosen(flows, mark, query, names)
    groups = _groups(flows, mark, query, numbers)
    columns = [column[numbers] for column in (*mark.change, mark.new(flows).astype(np.int64), *mark.since_began)]
    shown = groups.only(_best(groups, columns, query))
    counts = _counts([shown.sums(column) for column in columns], shown.sizes, mark.interval_ns)
    cells = _cells(take(flows.keys, numbers[shown.first]), query, names)
    totals = [column.sum(keepdims=True) for column in columns]
    return {
        "interval_s": mark.interval_ns / NS_PER_S or None,
        "by": list(query.by),
        "sort": query.sort,
        "filter": query.filter,
        "totals": _counts(totals, np.array([len(numbers)]), mark.interval_ns)[0],
        "groups": len(groups.starts),
        "rows": [{**labels, **numbers} for labels, numbers in zip(cells, counts)],
    }


def _chosen(flows: Flows, mark: Mark, query: Query, names: InterfaceTable) -> Indices:
    """The flows with packets since the client began that its filter takes."""
    active: npt.NDArray[np.bool_] = mark.since_began[0] > 0
    condition = query.condition
    if condition is not None:
        active &= matches(condition, flows.keys, names)
    return np.flatnonzero(active)


def _groups(flows: Flows, mark: Mark, query: Query, numbers: Indices) -> Groups:
    """The flows ``numbers`` in groups: those of the last frame, if nothing has changed."""
    depends_on = flows.version, query.by, query.prefixes
    if mark.grouped is None or mark.grouped[0] != depends_on or not np.array_equal(mark.grouped[1], numbers):
        words = words_of(take(flows.keys, numbers), query.by, query.prefixes)
        mark.grouped = depends_on, numbers, group(words)
    return mark.grouped[2]


def _best(groups: Groups, columns: list[Integers], query: Query) -> Indices:
    """The first groups in the order of ``query``; of equals, the one with more octets so far."""
    packets, octets, new, _, total = columns
    rates = groups.sums(dict(zip(SORT, (octets, packets, new)))[query.sort])
    several = np.arange(len(rates))
    if len(rates) > query.rows:
        several = np.flatnonzero(rates >= np.partition(rates, -query.rows)[-query.rows])
    order = np.lexsort((groups.only(several).sums(total), rates[several]))[::-1]
    return several[order[: query.rows]]


def _counts(sums: list[Integers], sizes: Integers, interval_ns: int) -> list[dict[str, Any]]:
    """The numbers of each group. ``sums``: its packets, octets and new flows of the interval, and its packets and
    octets so far."""
    per_s = NS_PER_S / interval_ns if interval_ns else None
    return [
        {
            "bits_per_s": None if per_s is None else round(octets * 8 * per_s),
            "packets_per_s": None if per_s is None else round(packets * per_s, 1),
            "new_flows_per_s": None if per_s is None else round(new * per_s, 1),
            "packets": all_packets,
            "octets": all_octets,
            "flows": flows,
        }
        for (packets, octets, new, all_packets, all_octets), flows in zip(np.transpose(sums).tolist(), sizes.tolist())
    ]


def _cells(keys: Records, query: Query, names: InterfaceTable) -> list[dict[str, Any]]:
    """What the rows that are shown are called: a few dozen."""
    positions = names.positions(keys["netns"], keys["ifindex"]).tolist()
    spaces = names.namespace_positions(keys["netns"]).tolist()
    ends = {end: networks(keys, end, query.prefixes) if f"{end}net" in query.by else None for end in ("src", "dst")}
    rows = []
    for number, key in enumerate(keys):
        row: dict[str, Any] = {}
        for word in query.by:
            if word in ("src", "dst"):
                row[word] = _address(key[f"{word}_addr"].tobytes())
            elif word in ("srcnet", "dstnet"):
                masked = ends[word[:3]]
                assert masked is not None
                row[word] = _network(masked[number].tobytes(), int(key["ethertype"]) == 0x0800, query.prefixes)
            elif word == "if":
                row[word] = _interface(key, names, positions[number], spaces[number])
            else:
                row[word] = _WORDS[word](key)
        rows.append(row)
    return rows


def _address(octets: bytes) -> str:
    address = ipaddress.IPv6Address(octets)
    return str(address.ipv4_mapped or address)


def _network(octets: bytes, is_ipv4: bool, prefixes: tuple[int, int]) -> str:
    return f"{_address(octets)}/{prefixes[0 if is_ipv4 else 1]}"


def _interface(key: Any, names: InterfaceTable, position: int, space: int) -> str:
    name = names.names[position].decode() or f"#{int(key['ifindex'])}"
    if not int(key["netns"]):
        return name
    return f"{names.namespaces[space].decode() or '#' + str(int(key['netns']))}/{name}"


def _destination_port(key: Any) -> Any:
    number = int(key["dst_port"])
    return f"{number >> 8}.{number & 0xFF}" if int(key["protocol"]) in ICMP else number


_WORDS: dict[str, Callable[[Any], Any]] = {
    "sport": lambda key: int(key["src_port"]),
    "dport": _destination_port,
    "proto": lambda key: _PROTOCOL_NAMES.get(int(key["protocol"]), str(int(key["protocol"]))),
    "dir": lambda key: DIRECTIONS[int(key["direction"]) & 1],
    "vlan": lambda key: int(key["vlan_id"]),
}
