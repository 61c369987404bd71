"""Finds and checks the files of an earlier run in a folder. Unread files are never deleted."""

from __future__ import annotations

import errno
from typing import NamedTuple

from netobs.export.spool.folder import INDEX_SUFFIX, SUFFIX, Cursor, Folder
from netobs.export.spool.segment import Damaged, Loss, Segment, sets_of
from netobs.export.spool.templates import Readable
from netobs.flow.tally import Tally

_NO_RESOURCES = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSPC, errno.EROFS, errno.EDQUOT)
"""Temporary errors, and errors of the whole disk: the folder is tried again later. Others concern one file."""


class Templates(NamedTuple):
    """The replayable files: those that ``Readable(sets)`` accepts (see ``sets_of``), with Messages up to
    ``max_message_size``."""

    sets: bytes
    max_message_size: int


class FoundSegment(NamedTuple):
    """``why`` nothing of it can be sent, if that is so: what is aside has that in its name."""

    segment: Segment
    loss: Loss
    why: str


class Found(NamedTuple):
    """``segments``: oldest first; ``aside``: names of files that an earlier run could not send.

    ``cursor_fits``: if not, everything is sent, even if it was sent before.
    """

    segments: list[FoundSegment]
    aside: list[str]
    cursor_fits: bool
    last_number: int


def find(folder: Folder, cursor: Cursor, templates: Templates) -> Found:
    """The contents of ``folder``, from ``cursor`` on. Raises OSError."""
    names = folder.names()
    aside = sorted(name for name in names if f"{SUFFIX}." in name and _number(name) >= 0)
    numbers = sorted({_number(name) for name in names if name.endswith((SUFFIX, INDEX_SUFFIX))} - {-1})
    cursor_fits = _fits(folder, cursor, numbers)
    if not cursor_fits:
        cursor = Cursor()
    segments, readable = [], Readable(templates.sets)
    for number in numbers:
        through = number < cursor.number
        try:
            segment, loss = Segment.recover(folder, number, cursor.message if number == cursor.number else 0)
        except OSError as error:
            if error.errno in _NO_RESOURCES:
                raise
            if not through:
                segment, loss = Segment(folder, number), Loss(Tally(), f"cannot be read: {error.strerror}")
                segments.append(FoundSegment(segment, loss, "damaged"))
            continue
        if through:
            segment.delete()
        else:
            segments.append(FoundSegment(segment, loss, _why_not(segment, readable, templates.max_message_size)))
    last = max([cursor.number, *numbers, *map(_number, aside)])
    return Found(segments, aside, cursor_fits, last)


def _number(name: str) -> int:
    """The number at the start of a file name, or -1."""
    stem = name.partition(".")[0]
    return int(stem) if stem.isascii() and stem.isdecimal() and len(stem) <= 18 else -1


def _fits(folder: Folder, cursor: Cursor, numbers: list[int]) -> bool:
    """Whether ``cursor`` belongs to these segments: earlier segments must be deleted."""
    if not cursor.sound:
        return not numbers
    if cursor.number not in numbers:
        return not numbers or cursor.number < numbers[0]
    try:
        segment, _ = Segment.recover(folder, cursor.number, 0)
        if cursor.message > segment.messages:
            return False
        fits = cursor.offset in (-1, segment.offset(cursor.message))
        segment.close()
    except (OSError, Damaged):
        return False
    return fits


def _why_not(segment: Segment, readable: Readable, max_message_size: int) -> str:
    """Why ``segment`` cannot be sent, or an empty string. Raises OSError."""
    if not segment.messages:
        return ""
    try:
        segment.sets = sets_of(segment.template_messages())
        if not segment.unread:
            return ""
        if not readable.takes(segment.sets):
            return "other-template"
        return "too-large" if segment.exceeds(max_message_size) else ""
    except Damaged:
        return "damaged"
    finally:
        segment.close()
