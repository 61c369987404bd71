"""Names of interfaces by index, as columns."""

from __future__ import annotations

import numpy as np

from netobs.flow.interface_key import interface_key
from netobs.flow.interface_names import NO_INTERFACES, InterfaceTable, interface_table


def named(table: InterfaceTable, *ifindex: int, netns: int = 0) -> list[tuple[bytes, bytes]]:
    indices = np.array(ifindex, dtype=np.uint32)
    at = table.positions(np.full(len(indices), netns, dtype=np.uint16), indices)
    return list(zip(table.names[at].tolist(), table.aliases[at].tolist()))


def test_each_index_has_its_name_and_others_have_none() -> None:
    table = interface_table({7: ("eth7", "uplink"), 2: ("lo", ""), 0xFFFFFFFF: ("tap", "x" * 255)})
    lo, eth7, tap = (b"lo", b""), (b"eth7", b"uplink"), (b"tap", b"x" * 255)
    assert named(table, 2, 7, 7, 0xFFFFFFFF) == [lo, eth7, eth7, tap]
    assert named(table, 0, 1, 3, 6, 8, 0xFFFFFFFE) == [(b"", b"")] * 6
    assert named(table) == []


def test_without_interfaces_all_names_are_empty() -> None:
    assert named(NO_INTERFACES, 0, 1, 0xFFFFFFFF) == [(b"", b"")] * 3


def test_what_is_not_unicode_is_replaced() -> None:
    """Names are any bytes for the kernel; RFC 7011, 6.1.6: ill-formed UTF-8 is not sent."""
    assert named(interface_table({1: (b"\xffth\xe4".decode("utf-8", "surrogateescape"), "Gerät")}), 1) == [
        (b"?th?", "Gerät".encode())
    ]


def test_one_index_in_several_namespaces_has_a_name_in_each() -> None:
    keys = [interface_key(netns, 3) for netns in (0, 1, 511)]
    table = interface_table({key: (f"eth{key >> 32}", "") for key in keys}, {1: "qrouter-1", 3: "qrouter-3"})
    for netns, name in ((0, b"eth0"), (1, b"eth1"), (511, b"eth511"), (2, b"")):
        assert named(table, 3, netns=netns) == [(name, b"")]
    numbers = np.array([0, 1, 2, 3, 4, 511], dtype=np.uint16)
    names = table.namespaces[table.namespace_positions(numbers)].tolist()
    assert names == [b"", b"qrouter-1", b"", b"qrouter-3", b"", b""]
