"""Layouts as the compiler wrote them into the BTF of an object, and the enums of a header in bpf/.

libbpf reads BTF without asking the kernel anything: no root is needed.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes import POINTER, c_char_p, c_int, c_int32, c_int64, c_uint32, c_void_p
from pathlib import Path
from typing import Any

import numpy as np

from netobs.kernel import libbpf

HEADERS = Path(__file__).parents[2] / "bpf"
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
            inner = self.dtype(array.type)
            return np.dtype((inner.base, (array.nelems, *inner.shape)))
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


@contextmanager
def btf_of(path: Path) -> Iterator[Btf]:
    """The BTF of the object ``path``."""
    assert path.exists(), "make bpf makes it"
    parsed = Btf(path)
    try:
        yield parsed
    finally:
        parsed.close()


def fields(dtype: np.dtype[Any]) -> list[tuple[str, int, Any]]:
    """(name, offset, shape and type) of each field; of fields that are structs, their fields."""
    found = []
    for name in dtype.names or ():
        field, offset = dtype.fields[name][:2]  # type: ignore[index]
        base, shape = field.base, field.shape
        found.append((name, offset, (shape, fields(base) if base.names else base.str)))
    return found


def enum(header: Path, name: str) -> list[str]:
    """The entries of an enum of ``header``. One that only code uses is not in BTF."""
    text = re.sub(r"/\*.*?\*/", "", header.read_text(encoding="ascii"), flags=re.S)
    body = re.search(rf"enum {name} {{(.*?)}};", text, re.S)
    assert body, f"no enum {name}"
    return [" ".join(entry.split()) for entry in body[1].split(",") if entry.strip()]
