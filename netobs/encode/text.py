"""Strings in Data Records: cut and padded to a fixed length, or preceded by their length (RFC 7011, section 7).

In a Data Set each string of variable length has room for the longest; ``squeeze`` removes the unused octets.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from netobs.encode.layout import LONG_LENGTH, VARIABLE_LENGTH
from netobs.encode.template.field import Field
from netobs.encode.template.template import Template
from netobs.flow.interface_names import Texts

if TYPE_CHECKING:
    import numpy.typing as npt

_UTF8_MORE = 3
"""The most octets of a UTF-8 character after its first."""


def encode(texts: Texts, field: Field) -> npt.NDArray[np.uint8]:
    """``texts`` for a Data Set, shape ``(len(texts), field.row_octets)``: cut at a character, NUL-padded."""
    prefix = field.prefix_octets
    room = field.row_octets - prefix
    matrix = np.ascontiguousarray(texts).view(np.uint8).reshape(len(texts), -1)
    lengths = _cut(matrix, np.char.str_len(texts).astype(np.int64), room)
    out = np.zeros((len(texts), field.row_octets), dtype=np.uint8)
    width = min(room, matrix.shape[1])
    out[:, prefix : prefix + width] = matrix[:, :width] * (np.arange(width) < lengths[:, np.newaxis])
    if prefix:
        out[:, 0] = np.minimum(lengths, LONG_LENGTH)
    if prefix > 1:
        is_long = lengths >= LONG_LENGTH
        out[:, 1], out[:, 2] = (lengths >> 8) * is_long, (lengths & 0xFF) * is_long
    return out


def _cut(matrix: npt.NDArray[np.uint8], lengths: npt.NDArray[np.int64], room: int) -> npt.NDArray[np.int64]:
    """The lengths of the strings in ``matrix``, one a row, cut to ``room`` octets but not inside a character."""
    ends = np.minimum(lengths, room)
    row, last = np.arange(len(matrix)), matrix.shape[1] - 1
    for _ in range(_UTF8_MORE):
        continues = (matrix[row, np.minimum(ends, last)] & 0xC0) == 0x80
        ends = ends - ((ends < lengths) & (ends > 0) & continues)
    return ends


def squeeze(template: Template, rows: npt.NDArray[np.void]) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """``rows`` of a Data Set as Data Records back to back (shape ``(bytes,)``), and where each one ends, int64."""
    matrix = np.ascontiguousarray(rows).view(np.uint8).reshape(len(rows), rows.dtype.itemsize)
    parts, masks = [], []
    sizes = np.zeros(len(rows), dtype=np.int64)
    done = at = 0
    for field in template.fields:
        end = at + field.row_octets
        if field.octets == VARIABLE_LENGTH:
            text, mask, lengths = _used(matrix[:, at:end], field.prefix_octets)
            parts += [matrix[:, done:at], text]
            masks += [np.ones((len(rows), at - done), dtype=np.bool_), mask]
            sizes += lengths + (at - done)
            done = end
        at = end
    parts.append(matrix[:, done:])
    masks.append(np.ones((len(rows), at - done), dtype=np.bool_))
    records = np.concatenate(parts, axis=1)[np.concatenate(masks, axis=1)]
    return records, np.cumsum(sizes + (at - done))


def _used(
    rows: npt.NDArray[np.uint8], prefix_octets: int
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_], npt.NDArray[np.int64]]:
    """The columns of a string that any row uses, the mask of each row's own columns, and their number (int64)."""
    lengths = rows[:, 0].astype(np.int64)
    is_long = lengths == LONG_LENGTH
    if prefix_octets > 1:
        lengths = np.where(is_long, rows[:, 1].astype(np.int64) << 8 | rows[:, 2], lengths)
    longest = int(lengths.max(initial=0))
    mask = np.ones((len(rows), prefix_octets + longest), dtype=np.bool_)
    mask[:, 1:prefix_octets] = is_long[:, np.newaxis]
    mask[:, prefix_octets:] = np.arange(longest) < lengths[:, np.newaxis]
    return rows[:, : prefix_octets + longest], mask, lengths + np.where(is_long, prefix_octets, 1)
