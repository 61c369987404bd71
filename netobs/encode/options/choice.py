"""The options records that a template file selects: its keys ``options`` and ``options_form``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from netobs.base.errors import TemplateError
from netobs.config.text import nearest, toml_text
from netobs.encode.template.template import Template

INTERFACES, NAMESPACES, SAMPLING = "interfaces", "namespaces", "sampling"
METERING_STATISTICS, METERING_RELIABILITY = "metering_statistics", "metering_reliability"
EXPORTING_RELIABILITY, FLOW_KEYS, ELEMENT_TYPES = "exporting_reliability", "flow_keys", "element_types"
KINDS = (INTERFACES, SAMPLING, METERING_STATISTICS, EXPORTING_RELIABILITY, METERING_RELIABILITY, FLOW_KEYS,
         ELEMENT_TYPES, NAMESPACES)  # fmt: skip
DEFAULT_KINDS = (INTERFACES, SAMPLING, METERING_STATISTICS, EXPORTING_RELIABILITY, METERING_RELIABILITY, ELEMENT_TYPES,
                 NAMESPACES)  # fmt: skip
FIXED, STRICT = "fixed", "strict"
FORMS = (FIXED, STRICT)
KEYS = ("options", "options_form")


class OptionsChoice(NamedTuple):
    """``kinds``: of ``KINDS``. ``form``: "fixed", which every known collector reads, or "strict", by the RFCs."""

    kinds: tuple[str, ...] = DEFAULT_KINDS
    form: str = FIXED


NO_OPTIONS = OptionsChoice(())


class TemplateSet(tuple[Template, ...]):
    """The Templates of a file, and its choice of options records. ``has_ids``: the file has the former key ``id``."""

    options: OptionsChoice
    has_ids: bool

    def __new__(
        cls, templates: Sequence[Template], options: OptionsChoice = NO_OPTIONS, has_ids: bool = False
    ) -> TemplateSet:
        made = super().__new__(cls, templates)
        made.options = options
        made.has_ids = has_ids
        return made

    @property
    def former_ids(self) -> str:
        """A warning about the former key, or an empty string."""
        if not self.has_ids:
            return ""
        source = self[0].source.partition(": [[")[0]
        return f'{source}: key "id" is no longer used: Template IDs follow from the elements; remove it'

    @property
    def says_sampling(self) -> bool:
        """Whether a collector learns the sampling rate, from options records or from each Data Record."""
        return SAMPLING in self.options.kinds or all(
            any(field.element.name == "samplingInterval" for field in template.fields) for template in self
        )

    @property
    def says_namespace(self) -> bool:
        """Whether each Data Record says in which network namespace its interface is."""
        names = [{field.element.name for field in template.fields} for template in self]
        return all("VRFname" in each or {"ingressVRFID", "egressVRFID"} <= each for each in names)


def parse_options(document: Mapping[str, Any], source: str) -> OptionsChoice:
    """The choice in the top level of a template file. Raises TemplateError."""
    kinds, form = document.get("options", list(DEFAULT_KINDS)), document.get("options_form", FIXED)
    if not isinstance(kinds, list):
        raise TemplateError(f"{source}: options: expected a list, got {toml_text(kinds)}", "write [] for none")
    for number, kind in enumerate(kinds, 1):
        where = f"{source}: options, entry {number}"
        _check(kind, KINDS, where)
        if kind in kinds[: number - 1]:
            raise TemplateError(f"{where}: {kind} is listed twice")
    _check(form, FORMS, f"{source}: options_form")
    return OptionsChoice(tuple(kinds), form)


def _check(word: Any, known: Sequence[str], where: str) -> None:
    if not isinstance(word, str) or word not in known:
        choices = ", ".join(f'"{choice}"' for choice in known)
        near = nearest(word, known) if isinstance(word, str) else ""
        hint = f'did you mean "{near}"?' if near else ""
        raise TemplateError(f"{where}: expected one of {choices}, got {toml_text(word)}", hint)
