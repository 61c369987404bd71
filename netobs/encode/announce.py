"""Messages without flows: Templates, Options Templates and options records, in the order that readers need."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from netobs.base.ipfix import MAX_MESSAGE_BYTES, SET_HEADER
from netobs.encode.columns import ALL_COLUMNS, Column
from netobs.encode.data_set import RecordEncoder
from netobs.encode.options.choice import ELEMENT_TYPES
from netobs.encode.options.table import spoken
from netobs.encode.options.wire import OptionsTemplate, Subject
from netobs.encode.template.template import Template
from netobs.flow.report import Report


class SetBody(NamedTuple):
    """A Set (v9: FlowSet) to be sent. ``records``: Data Records in it; ``templates``: Template Records in it."""

    set_id: int
    body: bytes
    records: int = 0
    templates: int = 0


class AnnouncingEncoder(RecordEncoder):
    """An encoder of a protocol that has Templates. Subclasses define the form of a Message."""

    template_set_id: int
    options_template_set_id: int
    header_bytes: int
    align_bytes = 1

    def __init__(
        self,
        templates: Sequence[Template],
        columns: Mapping[str, Column] = ALL_COLUMNS,
        options: Sequence[OptionsTemplate] = (),
    ) -> None:
        super().__init__(templates, columns)
        self.options = tuple(options)

    def check(self, max_message_size: int) -> None:
        """Raise TemplateError if a Template or one of its Data Records is too large for ``max_message_size`` bytes."""
        raise NotImplementedError

    def message(self, header: Any, sets: Sequence[SetBody]) -> bytes:
        """A Message with ``sets`` and the Sequence Number of ``header``."""
        raise NotImplementedError

    def options_record(self, template: OptionsTemplate) -> bytes:
        """The Options Template Record of ``template``."""
        raise NotImplementedError

    def template_messages(self, header: Any, max_message_size: int) -> list[bytes]:
        """The Templates of flows, each in a Message of its own: some collectors read only the first of a Message."""
        self.check(max_message_size)
        return [message for message, _ in self._messages(header, ([each] for each in self._template_sets()))]

    def announcement(
        self, report: Report, header: Any, max_message_size: int, templates: bool = True
    ) -> list[tuple[bytes, int]]:
        """Messages, the first with the Sequence Number of ``header``, and how many Data Records are in each.

        With ``templates``: the types of enterprise elements (RFC 5610), the Templates of flows, the Options Templates,
        each in a Message of its own; then the options records, in as few Messages as ``max_message_size`` allows.
        Without: the options records that may have changed. Raises TemplateError like ``check``.
        """
        self.check(max_message_size)
        room = min(max_message_size, MAX_MESSAGE_BYTES) - self.header_bytes
        subject = Subject(report, self.templates, header.observation_domain)
        said = spoken(self.options, subject)
        types = [each for each in said if each.kind == ELEMENT_TYPES]
        others = [each for each in said if each.kind != ELEMENT_TYPES]
        parts: list[Sequence[SetBody]] = []
        if templates:
            parts += [[self._options_template_set(each)] for each in types]
            parts += self._data(types, subject, room)
            parts += [[each] for each in self._template_sets()]
            parts += [[self._options_template_set(each)] for each in others]
        parts += self._data(others, subject, room)
        return self._messages(header, parts)

    def _template_sets(self) -> list[SetBody]:
        records = dict.fromkeys(template.record for template in self.templates)  # families can have the same one
        return [SetBody(self.template_set_id, record, templates=1) for record in records]

    def _options_template_set(self, template: OptionsTemplate) -> SetBody:
        return SetBody(self.options_template_set_id, self.options_record(template), templates=1)

    def _data(self, options: Sequence[OptionsTemplate], subject: Subject, room: int) -> list[list[SetBody]]:
        """Data Sets, in as few Messages with ``room`` bytes for Sets as their order allows."""
        groups: list[list[SetBody]] = []
        filled = room
        for template in options:
            for body, records in template.data(subject, room - SET_HEADER.itemsize - self.align_bytes + 1):
                size = SET_HEADER.itemsize + len(body) + -len(body) % self.align_bytes
                if filled + size > room:
                    groups.append([])
                    filled = 0
                groups[-1].append(SetBody(template.id, body, records))
                filled += size
        return groups

    def _messages(self, header: Any, parts: Iterable[Sequence[SetBody]]) -> list[tuple[bytes, int]]:
        messages = []
        for sets in parts:
            records = sum(each.records for each in sets)
            messages.append((self.message(header, sets), records))
            header = header.advance(records, 1)
        return messages
