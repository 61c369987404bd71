"""Template files: TOML to ``Template`` objects, with every mistake named by file, table and element."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from netobs.base.errors import TemplateError
from netobs.base.files import read_file
from netobs.config.text import one_line, toml_text
from netobs.encode.columns import ETHERTYPES
from netobs.encode.options import choice as options_choice
from netobs.encode.options.choice import TemplateSet
from netobs.encode.registry import InformationElement
from netobs.encode.template.entry import check_keys, nearest, parse_entry
from netobs.encode.template.field import Field
from netobs.encode.template.template import Template

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_FAMILIES = (*ETHERTYPES, "any")
_KEYS = ("family", "elements")
_FORMER_KEYS = ("id",)
_SUFFIX = ".toml"
_MAX_MIB = 1


def template_dirs() -> list[Path]:
    """The folders to search for template files by name: the administrator's first, then the shipped templates.

    The latter is ``templates`` in the package. In a wheel it has the files; elsewhere it is a symbolic link to their
    folder (the top of the source tree, or /usr/share/netobs/templates of an installation).
    """
    package = Path(__file__).resolve().parents[2]
    places = (Path("/etc/netobs/templates"), package / "templates")
    return [place.resolve() for place in places if place.is_dir()]


def load(name_or_path: str, search: Sequence[Path] | None = None) -> TemplateSet:
    """The Templates of a file: a name looked for in ``search`` (default: ``template_dirs()``), or a path.

    Anything with a slash or that ends in ".toml" is a path. Raises TemplateError.
    """
    places = template_dirs() if search is None else search
    path = _find(name_or_path, places)
    try:
        text = read_file(path, _MAX_MIB).decode("utf-8")
    except FileNotFoundError as error:
        name = path.name[: -len(_SUFFIX)] if path.name == str(path) else ""
        hint = f'did you mean "{name}"?' if name in _known(places) else ""
        raise TemplateError(f"{path}: cannot read the template file: {error.strerror}", hint) from error
    except OSError as error:
        raise TemplateError(f"{path}: cannot read the template file: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise TemplateError(f"{path}: not UTF-8 at byte {error.start}", "save the file as UTF-8") from error
    return parse(text, str(path))


def _find(name_or_path: str, search: Sequence[Path]) -> Path:
    if "/" in name_or_path or name_or_path.endswith(_SUFFIX):
        return Path(name_or_path)
    for place in search:
        path = place / (name_or_path + _SUFFIX)
        if path.is_file():
            return path
    known = _known(search)
    places = ", ".join(str(place) for place in search) or "any directory"
    raise TemplateError(
        f'no template file "{name_or_path}{_SUFFIX}" in {places}',
        f"use one of {', '.join(known)}, or a path" if known else "give a path",
    )


def _known(search: Sequence[Path]) -> list[str]:
    return sorted({path.stem for place in search for path in place.glob("*" + _SUFFIX)})


def parse(text: str, source: str) -> TemplateSet:
    """The Templates in ``text`` (TOML); ``source`` names the file in errors. Raises TemplateError."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise TemplateError(f"{source}: not valid TOML: {one_line(str(error))}") from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, a thousand brackets
        raise TemplateError(f"{source}: not a readable TOML file: {one_line(str(error).partition(';')[0])}") from error
    check_keys(document, ("template", *options_choice.KEYS), source)
    tables = document.get("template")
    if isinstance(tables, dict):
        raise TemplateError(f"{source}: [template] is a table", "write [[template]], with two brackets")
    if not isinstance(tables, list) or not tables or not all(isinstance(table, dict) for table in tables):
        raise TemplateError(f"{source}: no [[template]] table", "add at least one")
    templates = tuple(_template(table, f"{source}: [[template]] {number}") for number, table in enumerate(tables, 1))
    options = options_choice.parse_options(document, source)
    _check_set(templates)
    return TemplateSet(templates, options, any("id" in table for table in tables))


def _check_set(templates: Sequence[Template]) -> None:
    """Refuses a family twice: a second Template would export, and so count, every flow twice."""
    families: dict[str, str] = {}
    for template in templates:
        for family in ETHERTYPES if template.family == "any" else (template.family,):
            if family in families:
                raise TemplateError(
                    f'{template.source}: family "{template.family}": {family} already has {families[family]}',
                    "each family can have one template in a file",
                )
            families[family] = template.source.rpartition(": ")[2]
    _check_definitions(templates)


def _check_definitions(templates: Sequence[Template]) -> None:
    """Refuses two definitions of one number or name of an enterprise: RFC 5610 has one definition for each."""
    numbers: dict[tuple[int, int], tuple[InformationElement, str]] = {}
    names: dict[str, tuple[InformationElement, str]] = {}
    for template in templates:
        for position, field in enumerate(template.fields, 1):
            element = field.element
            if not element.enterprise:
                continue
            place = f"elements, entry {position}"
            here = (element, f"{template.source.rpartition(': ')[2]}, {place}")
            where = f"{template.source}: {place}: {element.name}"
            known, first = numbers.setdefault((element.enterprise, element.id), here)
            if known.name != element.name:
                raise TemplateError(
                    f"{where}: id {element.id} of enterprise {element.enterprise} is the id of {known.name} ({first})",
                    "give each element an id of its own",
                )
            known, first = names.setdefault(element.name, here)
            if known != element:
                raise TemplateError(f"{where}: defined differently in {first}", "only value and octets may differ")


def _template(table: dict[str, Any], where: str) -> Template:
    check_keys(table, (*_KEYS, *_FORMER_KEYS), where)
    for key in _KEYS:
        if key not in table:
            raise TemplateError(f'{where}: key "{key}" is missing')
    family = table["family"]
    if family not in _FAMILIES:
        choices = ", ".join(f'"{choice}"' for choice in _FAMILIES)
        raise TemplateError(
            f"{where}: family: expected one of {choices}, got {toml_text(family)}", nearest(family, _FAMILIES)
        )
    return Template(family, _fields(table["elements"], family, where), where)


def _fields(entries: Any, family: str, where: str) -> tuple[Field, ...]:
    if not isinstance(entries, list) or not entries:
        raise TemplateError(f"{where}: elements: expected a list of element names, got {toml_text(entries)}")
    fields: dict[str, Field] = {}
    for number, entry in enumerate(entries, 1):
        field = parse_entry(entry, family, f"{where}: elements, entry {number}")
        if field.element.name in fields:
            raise TemplateError(f"{where}: elements, entry {number}: {field.element.name} is listed twice")
        fields[field.element.name] = field
    return tuple(fields.values())
