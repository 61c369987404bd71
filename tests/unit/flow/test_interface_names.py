"""Names of interfaces by index, as columns."""

from __future__ import annotations

import numpy as np

from netobs.flow.interface_names import NO_INTERFACES, InterfaceTable, interface_table


def named(table: InterfaceTable, *ifindex: int) -> list[tuple[bytes, bytes]]:
    at = table.positions(np.array(ifindex, dtype=np.uint32))
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
