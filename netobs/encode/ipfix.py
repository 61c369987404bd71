"""IPFIX Messages (RFC 7011) from Flow Records: columns in, whole Messages out. No socket, no clock, no log."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from netobs.base.ipfix import IPFIX_VERSION, MAX_MESSAGE_BYTES, MESSAGE_HEADER, SET_HEADER
from netobs.encode.announce import AnnouncingEncoder, SetBody
from netobs.encode.columns import ALL_COLUMNS, sampled
from netobs.encode.data_set import DataSet, check_size, message_block, variable_block
from netobs.encode.layout import DATA_MESSAGE_HEADER, OPTIONS_TEMPLATE_SET_ID, TEMPLATE_SET_ID, big_endian
from netobs.encode.options.choice import NO_OPTIONS, OptionsChoice
from netobs.encode.options.table import options_templates
from netobs.encode.options.wire import OptionsTemplate
from netobs.encode.template.template import Template
from netobs.flow.records import MessageBlock

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["DataSet", "Encoder", "Header"]

_MAX_U32 = 0xFFFFFFFF
_MESSAGE, _SET = big_endian(MESSAGE_HEADER), big_endian(SET_HEADER)


class Header(NamedTuple):
    """A Transport Session's fields of the Message Header. ``sequence``: Data Records sent before this Message.

    ``clock_offset_ns`` is for the NetFlow protocols, whose header has two clocks.
    """

    export_time_s: int
    sequence: int
    observation_domain: int
    clock_offset_ns: int = 0

    def advance(self, records: int, messages: int = 0) -> Header:
        """The header after ``records`` more Data Records (the Sequence Number is modulo 2**32)."""
        return self._replace(sequence=(self.sequence + records) & _MAX_U32)


class Encoder(AnnouncingEncoder):
    """Builds Messages with one set of Templates and the options records ``options``. Without state.

    ``sampling``: one packet in N is measured; a Template may contain N. Raises TemplateError if a Data Record or
    Template Record does not fit in a Message.
    """

    template_set_id = TEMPLATE_SET_ID
    options_template_set_id = OPTIONS_TEMPLATE_SET_ID
    header_bytes = MESSAGE_HEADER.itemsize

    def __init__(self, templates: Sequence[Template], options: OptionsChoice = NO_OPTIONS, sampling: int = 1) -> None:
        super().__init__(templates, sampled(ALL_COLUMNS, sampling), options_templates(options))
        self.check(MAX_MESSAGE_BYTES)

    def check(self, max_message_size: int) -> None:
        """Raise TemplateError if a Template or one of its Data Records is too large for ``max_message_size`` bytes."""
        most = min(max_message_size, MAX_MESSAGE_BYTES)
        for template in self.templates:
            for part in (template.dtype.itemsize, len(template.record)):
                check_size(template, DATA_MESSAGE_HEADER.itemsize + part, most)

    def message(self, header: Header, sets: Sequence[SetBody]) -> bytes:
        """A Message with ``sets``, not padded."""
        body = b"".join(_SET.pack(each.set_id, _SET.size + len(each.body)) + each.body for each in sets)
        export_time_s = header.export_time_s & _MAX_U32
        length = _MESSAGE.size + len(body)
        return _MESSAGE.pack(IPFIX_VERSION, length, export_time_s, header.sequence, header.observation_domain) + body

    def options_record(self, template: OptionsTemplate) -> bytes:
        """The Options Template Record of ``template`` (RFC 7011, 3.4.2.2)."""
        return template.record

    def data_messages(self, data_set: DataSet, header: Header, max_message_size: int) -> MessageBlock:
        """``data_set`` as Messages of at most ``max_message_size`` bytes, each with one Data Set of whole records.

        The next header is ``header.advance(len(data_set))``. Raises TemplateError if not even one record fits.
        """
        template = data_set.template
        record_bytes, most = template.dtype.itemsize, min(max_message_size, MAX_MESSAGE_BYTES)
        check_size(template, DATA_MESSAGE_HEADER.itemsize + record_bytes, most)
        if template.is_variable:
            room = most - DATA_MESSAGE_HEADER.itemsize
            return variable_block(data_set, room, lambda counts, sizes: _heads(counts, sizes, header, template.id))
        per_message = (most - DATA_MESSAGE_HEADER.itemsize) // record_bytes
        return message_block(
            data_set, per_message, lambda counts: _heads(counts, counts * record_bytes, header, template.id)
        )


def _heads(
    counts: npt.NDArray[np.int64], body_bytes: npt.NDArray[np.int64], header: Header, set_id: int
) -> npt.NDArray[np.void]:
    """The headers of Messages with ``counts`` Data Records and ``body_bytes`` bytes each, shape ``(messages,)``."""
    heads = np.empty(len(counts), dtype=DATA_MESSAGE_HEADER)
    heads["version"] = IPFIX_VERSION
    heads["length"] = DATA_MESSAGE_HEADER.itemsize + body_bytes
    heads["export_time"] = header.export_time_s & _MAX_U32
    heads["sequence"] = (np.cumsum(counts) - counts + header.sequence) & _MAX_U32
    heads["observation_domain"] = header.observation_domain
    heads["set_id"] = set_id
    heads["set_length"] = SET_HEADER.itemsize + body_bytes
    return heads
