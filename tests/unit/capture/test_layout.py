"""The layouts of ``bpf/netobs.h``, as the compiler wrote them into the object's BTF, against their numpy mirrors.

libbpf reads BTF without asking the kernel anything: no root is needed. An enum that only code uses is not in BTF;
the order of its names is compared with the header.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Iterator
from ctypes import POINTER, c_char_p, c_int, c_int32, c_int64, c_uint32, c_void_p
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from netobs.capture import layout, libbpf, ring
from netobs.capture.object import OBJECT
from netobs.capture.percpu_array import PercpuArray
from netobs.capture.percpu_hash import PercpuHash
from netobs.records import KEY, METRICS, RECORD

HEADER = Path(__file__).parents[3] / "bpf" / "netobs.h"
INT, POINTER_TO, ARRAY, STRUCT, ENUM, VAR = 1, 2, 3, 4, 6, 14  # BTF_KIND_* of linux/btf.h
MODIFIERS = (8, 9, 10, 11)  # typedef, volatile, const, restrict


class BtfType(ctypes.Structure):
    """struct btf_type."""

    _fields_ = [("name_off", c_uint32), ("info", c_uint32), ("size_or_type", c_uint32)]


class BtfMember(ctypes.Structure):
    """struct btf_member; ``offset`` in bits."""

    _fields_ = [("name_off", c_uint32), ("type", c_uint32), ("offset", c_uint32)]


class BtfArray(ctypes.Structure):
    """struct btf_array."""

    _fields_ = [("type", c_uint32), ("index_type", c_uint32), ("nelems", c_uint32)]


class Btf:
    """The BTF of an object file."""

    _PROTOTYPES: dict[str, tuple[Any, list[Any]]] = {
        "btf__parse_elf": (c_void_p, [c_char_p, c_void_p]),
        "btf__free": (None, [c_void_p]),
        "btf__find_by_name_kind": (c_int32, [c_void_p, c_char_p, c_uint32]),
        "btf__type_by_id": (POINTER(BtfType), [c_void_p, c_uint32]),
        "btf__name_by_offset": (c_char_p, [c_void_p, c_uint32]),
        "btf__resolve_size": (c_int64, [c_void_p, c_uint32]),
        "btf__resolve_type": (c_int, [c_void_p, c_uint32]),
    }

    def __init__(self, path: Path) -> None:
        self._lib = libbpf.library()
        for name, (result, arguments) in self._PROTOTYPES.items():
            function = getattr(self._lib, name)
            function.restype, function.argtypes = result, arguments
        self._handle = self._lib.btf__parse_elf(bytes(path), None)
        assert self._handle, f"{path} has no BTF"

    def close(self) -> None:
        self._lib.btf__free(self._handle)

    def find(self, name: str, kind: int) -> int:
        found: int = self._lib.btf__find_by_name_kind(self._handle, name.encode(), kind)
        assert found > 0, f"BTF has no {name}"
        return found

    def _type(self, type_id: int) -> tuple[int, int, BtfType, int]:
        """(kind, number of members, type, address of what follows it), without typedef and const."""
        type_id = self._lib.btf__resolve_type(self._handle, type_id)
        pointer = self._lib.btf__type_by_id(self._handle, type_id)
        info = pointer.contents.info
        behind = ctypes.addressof(pointer.contents) + ctypes.sizeof(BtfType)
        return info >> 24 & 0x1F, info & 0xFFFF, pointer.contents, behind

    def dtype(self, type_id: int) -> np.dtype[Any]:
        """A numpy dtype that says the same as a BTF type: names, offsets, sizes, signs."""
        kind, count, entry, behind = self._type(type_id)
        if kind == INT:
            return np.dtype(
                f"<{'i' if ctypes.c_uint32.from_address(behind).value >> 24 & 1 else 'u'}{entry.size_or_type}"
            )
        if kind == ARRAY:
            array = BtfArray.from_address(behind)
            return np.dtype((self.dtype(array.type), (array.nelems,)))
        assert kind == STRUCT, kind
        members = [BtfMember.from_address(behind + i * ctypes.sizeof(BtfMember)) for i in range(count)]
        return np.dtype(
            {
                "names": [self._name(member.name_off) for member in members],
                "formats": [self.dtype(member.type) for member in members],
                "offsets": [member.offset // 8 for member in members],
                "itemsize": entry.size_or_type,
            }
        )

    def struct(self, name: str) -> np.dtype[Any]:
        return self.dtype(self.find(name, STRUCT))

    def variable(self, name: str) -> np.dtype[Any]:
        return self.dtype(self._target(self.find(name, VAR)))

    def map_types(self, variable: str) -> dict[str, str]:
        """The names of the key and value types of a map."""
        _, count, _, behind = self._type(self._target(self.find(variable, VAR)))
        types = {}
        for i in range(count):
            member = BtfMember.from_address(behind + i * ctypes.sizeof(BtfMember))
            if self._name(member.name_off) in ("key", "value"):
                _, _, pointed, _ = self._type(self._target(member.type))
                types[self._name(member.name_off)] = self._name(pointed.name_off)
        return types

    def _target(self, type_id: int) -> int:
        """What a variable or pointer is of."""
        target: int = self._lib.btf__type_by_id(self._handle, type_id).contents.size_or_type
        return target

    def _name(self, offset: int) -> str:
        text: bytes = self._lib.btf__name_by_offset(self._handle, offset)
        return text.decode().rstrip("_")  # errno is a macro in C


@pytest.fixture(scope="module")
def btf() -> Iterator[Btf]:
    assert OBJECT.exists(), "make bpf makes it"
    parsed = Btf(OBJECT)
    yield parsed
    parsed.close()


STRUCTS = {
    "flow_key": KEY,
    "flow_metrics": METRICS,
    "ledger_count": layout.LEDGER_COUNT,
    "ledger": layout.LEDGER,
    "netobs_settings": layout.SETTINGS,
    "netobs_state": layout.STATE,
    "flow_slot": layout.FLOW_SLOT,
    "flow_start": layout.FLOW_START,
    "overflow_key": layout.OVERFLOW_KEY,
}


@pytest.mark.parametrize("name", STRUCTS)
def test_dtype_is_the_struct(btf: Btf, name: str) -> None:
    ours, theirs = STRUCTS[name], btf.struct(name)
    assert _fields(ours) == _fields(theirs)
    assert ours.itemsize == theirs.itemsize


def _fields(dtype: np.dtype[Any]) -> list[tuple[str, int, Any]]:
    """(name, offset, shape and type) of each field; of fields that are structs, their fields."""
    fields = []
    for name in dtype.names or ():
        field, offset = dtype.fields[name][:2]  # type: ignore[index]
        base, shape = field.base, field.shape
        fields.append((name, offset, (shape, _fields(base) if base.names else base.str)))
    return fields


def test_record_is_key_and_metrics_without_padding() -> None:
    assert RECORD.itemsize == KEY.itemsize + METRICS.itemsize
    assert RECORD.itemsize % 8 == 0
    assert _fields(RECORD)[: len(KEY.names or ())] == _fields(KEY)
    metrics = [(name, offset + KEY.itemsize, kind) for name, offset, kind in _fields(METRICS)]
    assert _fields(RECORD)[len(KEY.names or ()) :] == metrics
    for dtype in (*STRUCTS.values(), RECORD, ring.ENTRY):
        assert dtype.itemsize == sum(dtype[name].itemsize for name in dtype.names or ())


def test_maps_hold_these_structs(btf: Btf) -> None:
    for name in PercpuHash.MAPS:
        assert btf.map_types(name) == {"key": "flow_key", "value": "flow_metrics"}
    for name in PercpuArray.OVERFLOW:
        assert btf.map_types(name) == {"key": "overflow_key", "value": "flow_metrics"}
    assert btf.map_types("flow_slots") == {"key": "unsigned int", "value": "flow_slot"}
    assert btf.map_types("flow_starts") == {"key": "unsigned int", "value": "flow_start"}
    assert btf.map_types("ledgers") == {"key": "unsigned int", "value": "ledger"}


def test_variables_are_what_user_space_writes(btf: Btf) -> None:
    assert _fields(btf.variable("settings")) == _fields(layout.SETTINGS)
    assert _fields(btf.variable("state")) == _fields(layout.STATE)


def _enum(name: str) -> list[str]:
    body = re.search(rf"enum {name} {{(.*?)}};", re.sub(r"/\*.*?\*/", "", HEADER.read_text(), flags=re.S), re.S)
    assert body, f"no enum {name}"
    return [" ".join(entry.split()) for entry in body[1].split(",") if entry.strip()]


def test_enums_of_the_header() -> None:
    reasons = [f"LEDGER_{name.upper()}" for name in layout.LEDGER_REASONS]
    assert _enum("ledger_reason") == [*reasons, "LEDGER_REASONS"]
    assert _enum("flow_table") == [f"TABLE_{name.upper()}" for name in layout.FLOW_TABLES]
    assert _enum("netobs_direction") == ["NETOBS_INGRESS = 0", "NETOBS_EGRESS = 1"]


def test_slot_encoding_of_the_header() -> None:
    entries = _enum("slot_encoding")
    assert entries == [f"{name} = {getattr(layout, name)}" for name in (entry.split()[0] for entry in entries)]
    assert {entry.split()[0] for entry in entries} == {name for name in dir(layout) if name.startswith("SLOT_")}


def test_slot_identifies_a_flow_by_its_first_44_bytes() -> None:
    """The program compares them as words, and zeroes nothing in between."""
    names = layout.FLOW_SLOT.names or ()
    assert layout.FLOW_SLOT.fields is not None
    assert layout.FLOW_SLOT.fields["last"][1] == 44
    identifying = names[: names.index("last")]
    assert identifying == ("src_addr", "dst_addr", "src_port", "dst_port", "ifindex", "place", "protocol", "used")
