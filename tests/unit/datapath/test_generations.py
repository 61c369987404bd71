"""Which maps of another version can be read a last time."""

from __future__ import annotations

from typing import Any

import pytest

from netobs.datapath.generations import described, read_layout
from netobs.datapath.interface_counts import InterfaceCounts
from netobs.datapath.layout import PLAIN, WITH_EXTRA, RecordLayout


def without(layout: RecordLayout, *names: str) -> dict[str, Any]:
    """As a version has described it that does not know the fields ``names``."""
    made = described(layout)
    made["structures"] = {
        name: [field for field in fields if field[0] not in names] for name, fields in made["structures"].items()
    }
    return made


@pytest.mark.parametrize("layout", [PLAIN, WITH_EXTRA])
def test_what_is_described_is_read(layout: RecordLayout) -> None:
    assert read_layout(described(layout)) == layout


@pytest.mark.parametrize("name", ["turn", "inside", "reserved", "tick_offset_ns", "min_ttl", "dst_mac"])
def test_a_field_that_another_version_lacks_is_done_without(name: str) -> None:
    layout = read_layout(without(PLAIN, name))
    assert layout is not None
    assert name not in (*(layout.ledger.names or ()), *(layout.state.names or ()), *(layout.slot.names or ()))


@pytest.mark.parametrize("name", ["seen", "active_half", "ifindex", "place", "first", "cpu"])
def test_a_field_without_which_nothing_can_be_read(name: str) -> None:
    assert read_layout(without(PLAIN, name)) is None


def test_maps_of_a_version_without_counts_of_interfaces() -> None:
    former = described(PLAIN)
    del former["structures"]["interface"]
    layout = read_layout(former)
    assert layout is not None
    assert layout.interface is None
    assert InterfaceCounts(4, 512, layout).kernel_bytes() == 0
