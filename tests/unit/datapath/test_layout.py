"""The layouts of ``bpf/netobs.h``, as the compiler wrote them into the object's BTF, against their numpy mirrors."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from netobs.datapath import layout, ring
from netobs.datapath.extra_maps import TCP_BUCKET_BYTES
from netobs.datapath.percpu_array import PercpuArray
from netobs.datapath.percpu_hash import PercpuHash
from netobs.flow.metrics import GROUPS
from netobs.flow.metrics import METRICS as METRICS_TABLE
from netobs.flow.records import EXTRA, EXTRA_RECORD, INSIGHT, KEY, METRICS, RECORD
from netobs.kernel.moving import TURN_FIRST, TURN_NEVER, TURN_SECOND
from netobs.kernel.object import OBJECT
from tests.unit.btf import HEADERS, Btf, btf_of, enum, fields

HEADER = HEADERS / "netobs.h"


@pytest.fixture(scope="module")
def btf() -> Iterator[Btf]:
    with btf_of(OBJECT) as parsed:
        yield parsed


@pytest.fixture(scope="module")
def extra_btf() -> Iterator[Btf]:
    """Of the object that is loaded where a template asks for optional metrics."""
    with btf_of(OBJECT.with_name(layout.WITH_EXTRA.object)) as parsed:
        yield parsed


STRUCTS = {
    "flow_key": KEY,
    "flow_metrics": METRICS,
    "ledger_count": layout.LEDGER_COUNT,
    "ledger": layout.LEDGER,
    "interface_count": layout.INTERFACE_COUNT,
    "ethertype_count": layout.ETHERTYPE_COUNT,
    "not_ip": layout.NOT_IP,
    "netobs_settings": layout.SETTINGS,
    "netobs_state": layout.STATE,
    "flow_slot": layout.FLOW_SLOT,
    "flow_start": layout.FLOW_START,
    "overflow_key": layout.OVERFLOW_KEY,
}


@pytest.mark.parametrize("name", STRUCTS)
def test_dtype_is_the_struct(btf: Btf, name: str) -> None:
    ours, theirs = STRUCTS[name], btf.struct(name)
    assert fields(ours) == fields(theirs)
    assert ours.itemsize == theirs.itemsize


def test_record_is_key_and_metrics_without_padding() -> None:
    assert RECORD.itemsize == KEY.itemsize + METRICS.itemsize
    assert RECORD.itemsize % 8 == 0
    assert fields(RECORD)[: len(KEY.names or ())] == fields(KEY)
    metrics = [(name, offset + KEY.itemsize, kind) for name, offset, kind in fields(METRICS)]
    assert fields(RECORD)[len(KEY.names or ()) :] == metrics
    for dtype in (*STRUCTS.values(), RECORD, ring.entry(RECORD)):
        assert dtype.itemsize == sum(dtype[name].itemsize for name in dtype.names or ())


def test_maps_hold_these_structs(btf: Btf) -> None:
    for name in PercpuHash.MAPS:
        assert btf.map_types(name) == {"key": "flow_key", "value": "flow_metrics"}
    for name in PercpuArray.OVERFLOW:
        assert btf.map_types(name) == {"key": "overflow_key", "value": "flow_metrics"}
    assert btf.map_types("flow_slots") == {"key": "unsigned int", "value": "flow_slot"}
    assert btf.map_types("flow_starts") == {"key": "unsigned int", "value": "flow_start"}
    assert btf.map_types("ledgers") == {"key": "unsigned int", "value": "ledger"}
    assert btf.map_types("interface_counts") == {"key": "unsigned int", "value": "interface_count"}
    assert btf.map_types("not_ip") == {"key": "unsigned int", "value": "not_ip"}


def test_variables_are_what_user_space_writes(btf: Btf) -> None:
    assert fields(btf.variable("settings")) == fields(layout.SETTINGS)
    assert fields(btf.variable("state")) == fields(layout.STATE)


def test_enums_of_the_header() -> None:
    reasons = [f"LEDGER_{name.upper()}" for name in layout.LEDGER_REASONS]
    assert enum(HEADER, "ledger_reason") == [*reasons, "LEDGER_REASONS"]
    assert enum(HEADER, "flow_table") == [f"TABLE_{name.upper()}" for name in layout.FLOW_TABLES]
    assert enum(HEADER, "netobs_counting") == [f"NETOBS_COUNTING_ENDED = {layout.COUNTING_ENDED}"]
    turns = {"FIRST": TURN_FIRST, "SECOND": TURN_SECOND, "NEVER": TURN_NEVER, "SETTLED": layout.TURN_SETTLED}
    assert enum(HEADER, "netobs_turn") == ["TURN_ALONE", *(f"TURN_{name} = {value}" for name, value in turns.items())]
    assert enum(HEADER, "interface_counting") == [
        f"INTERFACE_PROBES = {layout.INTERFACE_PROBES}",
        f"INTERFACE_NETNS_SHIFT = {layout.INTERFACE_NETNS_SHIFT}",
    ]
    assert enum(HEADER, "not_ip_sizes") == [f"NOT_IP_ETHERTYPES = {layout.NOT_IP_ETHERTYPES}"]
    assert enum(HEADER, "netobs_direction") == ["NETOBS_INGRESS = 0", "NETOBS_EGRESS = 1"]


def test_slot_encoding_of_the_header() -> None:
    entries = enum(HEADER, "slot_encoding")
    assert entries == [f"{name} = {getattr(layout, name)}" for name in (entry.split()[0] for entry in entries)]
    assert {entry.split()[0] for entry in entries} == {name for name in dir(layout) if name.startswith("SLOT_")}


def test_slot_identifies_a_flow_by_its_first_44_bytes() -> None:
    """The program compares them as words, and zeroes nothing in between."""
    names = layout.FLOW_SLOT.names or ()
    assert layout.FLOW_SLOT.fields is not None
    assert layout.FLOW_SLOT.fields["last"][1] == 44
    identifying = names[: names.index("last")]
    assert identifying == ("src_addr", "dst_addr", "src_port", "dst_port", "ifindex", "place", "protocol", "used")


def test_optional_metrics_are_behind_the_others_and_in_an_array(extra_btf: Btf) -> None:
    assert fields(extra_btf.struct("flow_extra")) == fields(EXTRA)
    assert extra_btf.struct("flow_extra").itemsize == EXTRA.itemsize == 64
    (*metrics, (name, offset, (_, nested))) = fields(extra_btf.struct("flow_metrics"))
    assert (metrics, name, offset, nested) == (fields(METRICS), "extra", METRICS.itemsize, fields(EXTRA))
    assert fields(layout.WITH_EXTRA.metrics) == [
        *metrics,
        *((field, at + METRICS.itemsize, kind) for field, at, kind in fields(EXTRA)),
    ]
    assert fields(EXTRA_RECORD)[: len(RECORD.names or ())] == fields(RECORD)
    assert EXTRA_RECORD.itemsize == RECORD.itemsize + EXTRA.itemsize
    for name in ("flow_extras", "packet_extras"):
        assert extra_btf.map_types(name) == {"key": "unsigned int", "value": "flow_extra"}
    others = set(STRUCTS) - {"flow_metrics"}
    assert {name: fields(extra_btf.struct(name)) for name in others} == {name: fields(STRUCTS[name]) for name in others}


def test_objects_of_hosts_without_optional_metrics_have_nothing_of_them(btf: Btf) -> None:
    for name in ("flow_extras", "packet_extras"):
        with pytest.raises(AssertionError, match=name):
            btf.map_types(name)
    with pytest.raises(AssertionError, match="flow_extra"):
        btf.struct("flow_extra")


@pytest.mark.parametrize("with_insight", [layout.WITH_INSIGHT, layout.FULL])
def test_insight_is_behind_the_others_and_in_an_array(with_insight: layout.RecordLayout) -> None:
    with btf_of(OBJECT.with_name(with_insight.object)) as parsed:
        assert fields(parsed.struct("flow_insight")) == fields(INSIGHT)
        assert parsed.struct("flow_insight").itemsize == INSIGHT.itemsize == 64
        assert parsed.struct("tcp_bucket").itemsize == TCP_BUCKET_BYTES
        flat: list[tuple[str, int]] = []
        for name, at, kind in fields(parsed.struct("flow_metrics")):
            inner = kind[1] if name in ("extra", "insight") else [(name, 0, kind)]
            flat += [(each, at + offset) for each, offset, _ in inner]
        assert flat == [(name, at) for name, at, _ in fields(with_insight.metrics)]
        assert parsed.struct("flow_metrics").itemsize == with_insight.metrics.itemsize
        assert parsed.map_types("flow_insights") == {"key": "unsigned int", "value": "flow_insight"}
        assert with_insight.record.itemsize == KEY.itemsize + with_insight.metrics.itemsize


@pytest.mark.parametrize("groups", [(), ("ip",), ("tcp",), ("tcp", "link")])
def test_the_least_layout_for_what_is_measured(groups: tuple[str, ...]) -> None:
    chosen = layout.layout_for(groups)
    assert (chosen.has_extra, chosen.has_insight) == (bool({*groups} - {"tcp"}), "tcp" in groups)
    assert {"mpls_depth" in (chosen.record.names or ()), "link" in groups or "ip" in groups} != {True, False}


def test_groups_of_the_header() -> None:
    bits = [f"EXTRA_{group.upper()} = {1 << number}" for number, group in enumerate(GROUPS)]
    assert enum(HEADER, "extra_group") == bits
    assert {metric.group for metric in METRICS_TABLE} == {"", *GROUPS}
