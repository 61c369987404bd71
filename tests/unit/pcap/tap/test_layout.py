"""The layouts of ``bpf/packets.h``, as the compiler wrote them into the object's BTF, against their numpy mirrors."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from netobs.kernel.object import OBJECT
from netobs.pcap.batch import HEADROOM_BYTES
from netobs.pcap.selection import LINK_ETHERNET, LINK_IP
from netobs.pcap.tap import layout
from tests.unit.btf import HEADERS, Btf, btf_of, enum, fields

HEADER = HEADERS / "packets.h"
STRUCTS = {
    "packet_meta": layout.META,
    "packet_counters": layout.COUNTERS,
    "packet_loss": layout.LOSS,
    "packet_peer": layout.PEER,
    "packet_state": layout.STATE,
}
WAYS = ("INGRESS", "EGRESS", "L3_INGRESS", "L3_EGRESS")


@pytest.fixture(scope="module")
def btf() -> Iterator[Btf]:
    with btf_of(OBJECT.with_name("packets.bpf.o")) as parsed:
        yield parsed


@pytest.mark.parametrize("name", STRUCTS)
def test_dtype_is_the_struct(btf: Btf, name: str) -> None:
    ours, theirs = STRUCTS[name], btf.struct(name)
    assert fields(ours) == fields(theirs)
    assert ours.itemsize == theirs.itemsize == sum(ours[field].itemsize for field in ours.names or ())


def test_maps_hold_these_structs(btf: Btf) -> None:
    assert btf.map_types("packet_matches") == {"key": "unsigned int", "value": "unsigned int"}
    assert btf.map_types("packet_counters") == {"key": "unsigned int", "value": "packet_counters"}
    assert btf.map_types("packet_losses") == {"key": "packet_loss", "value": "unsigned long long"}
    assert btf.map_types("own_streams") == {"key": "packet_peer", "value": "unsigned int"}


def test_variable_is_what_user_space_writes(btf: Btf) -> None:
    assert fields(btf.variable("packet_state")) == fields(layout.STATE)


def test_slots_of_the_header() -> None:
    names = [*(f"PACKET_FILTER_{way}" for way in WAYS), *(f"PACKET_COPY_{way}" for way in WAYS), "PACKET_SLOTS"]
    assert [entry.split()[0] for entry in enum(HEADER, "packet_slot")] == names
    assert (*layout.FILTER_SLOTS, *layout.COPY_SLOTS) == tuple(range(len(names) - 1))


def test_enums_of_the_header() -> None:
    links = [f"PACKET_LINK_ETHERNET = {LINK_ETHERNET}", f"PACKET_LINK_IP = {LINK_IP}"]
    assert enum(HEADER, "packet_link") == links
    sizes = {name: int(value) for name, value in (entry.split(" = ") for entry in enum(HEADER, "packet_size"))}
    assert sizes == {
        "PACKET_SNAPLEN": layout.SNAPLEN,
        "PACKET_LEAST_SNAPLEN": layout.LEAST_SNAPLEN,
        "PACKET_TAG_OCTETS": layout.TAG_OCTETS,
        "PACKET_LEAST_RING": layout.LEAST_RING_BYTES,
    }


def test_the_header_of_a_record_fits_where_the_meta_was() -> None:
    assert layout.META.itemsize >= HEADROOM_BYTES + layout.TAG_OCTETS
