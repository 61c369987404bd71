"""IPFIX structures as ``construct`` definitions (RFC 7011, section 3): for parsing, and the oracle of the tests.

They are built from the dtypes in ``netobs.encode.layout`` and from the fields of a Template. The daemon does not import
this module, because construct costs 6 MB.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import IO, Any

import construct as c
import numpy as np

from netobs.base.ipfix import MESSAGE_HEADER, SET_HEADER
from netobs.encode.layout import ENTERPRISE_BIT, FIELD_SPECIFIER, LONG_LENGTH, TEMPLATE_HEADER, VARIABLE_LENGTH
from netobs.encode.registry import abstract_type
from netobs.encode.template.field import Field

_MAX_INTEGER_OCTETS = 8
_INTEGER_OCTETS = {1: c.Int8ub, 2: c.Int16ub, 4: c.Int32ub, 8: c.Int64ub}
_FLOAT_OCTETS = {4: c.Float32b, 8: c.Float64b}


class _VariableLength(c.Construct):  # type: ignore[misc]
    """The length before a variable-length field: 1 octet below 255, else 255 and 2 octets (RFC 7011, 7)."""

    def _parse(self, stream: IO[bytes], context: Any, path: str) -> int:
        length: int = c.Int8ub._parsereport(stream, context, path)
        return c.Int16ub._parsereport(stream, context, path) if length == LONG_LENGTH else length

    def _build(self, obj: int, stream: IO[bytes], context: Any, path: str) -> int:
        if obj < LONG_LENGTH:
            c.Int8ub._build(obj, stream, context, path)
        else:
            c.Int8ub._build(LONG_LENGTH, stream, context, path)
            c.Int16ub._build(obj, stream, context, path)
        return obj


VariableBytes = c.Prefixed(_VariableLength(), c.GreedyBytes)


def _from_dtype(dtype: np.dtype[Any]) -> list[Any]:
    """The fields of a big-endian dtype of unsigned integers."""
    return [name / _INTEGER_OCTETS[dtype[name].itemsize] for name in dtype.names or ()]


MessageHeader = c.Struct(*_from_dtype(MESSAGE_HEADER))
SetHeader = c.Struct(*_from_dtype(SET_HEADER))
TemplateHeader = c.Struct(*_from_dtype(TEMPLATE_HEADER))
FieldSpecifier = c.Struct(
    *_from_dtype(FIELD_SPECIFIER),
    "enterprise" / c.If(c.this.element_id & ENTERPRISE_BIT, c.Int32ub),
)
TemplateRecord = c.Struct(*TemplateHeader.subcons, "fields" / c.Array(c.this.field_count, FieldSpecifier))
OptionsTemplateRecord = c.Struct(
    *TemplateHeader.subcons,
    "scope_field_count" / c.Int16ub,
    "fields" / c.Array(c.this.field_count, FieldSpecifier),
)
"""Scope fields come first; unlike here, a withdrawal ends after its field count of 0 (RFC 7011, 3.4.2.2 and 8.1)."""

Message = c.Struct(
    *MessageHeader.subcons,
    "sets"
    / c.FixedSized(
        c.this.length - MESSAGE_HEADER.itemsize,
        c.GreedyRange(
            c.Struct(*SetHeader.subcons, "body" / c.Bytes(c.this.set_length - SET_HEADER.itemsize)),
        ),
    ),
)


def _number_codec(field: Field) -> Any:
    """The construct of a number field with a valid length, else None."""
    kind = abstract_type(field.element.type).kind
    if kind == "u" and field.octets in _INTEGER_OCTETS:
        return _INTEGER_OCTETS[field.octets]
    if kind in "ui" and 0 < field.octets <= _MAX_INTEGER_OCTETS:
        return c.BytesInteger(field.octets, signed=kind == "i")
    return _FLOAT_OCTETS.get(field.octets) if kind == "f" else None


def is_number(field: Field) -> bool:
    """Whether ``data_record`` gives numbers for this field, not bytes."""
    return _number_codec(field) is not None


def _codec(field: Field) -> Any:
    if field.octets == VARIABLE_LENGTH:
        return VariableBytes
    return _number_codec(field) or c.Bytes(field.octets)


def data_record(fields: Sequence[Field]) -> Any:
    """The construct of a Data Record; the names of ``fields`` must differ from each other."""
    return c.Struct(*(field.element.name / _codec(field) for field in fields))
