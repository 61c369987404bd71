"""The kinds of value that a key can have. Each describes what it expects, and turns TOML values into Python ones."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, ClassVar

from netobs.config.text import nearest, quoted, toml_text


class BadValue(ValueError):
    """A value that its key does not accept. ``reasons`` has one line for each mistake in it."""

    def __init__(self, *reasons: str) -> None:
        super().__init__(*reasons)
        self.reasons = reasons


class Kind:
    """The values that a key accepts. ``suffix``: the unit that the dataclass field appends to the key's name."""

    suffix: ClassVar[str] = ""

    @property
    def expected(self) -> str:
        """A description of the valid values, to follow the word "expected"."""
        raise NotImplementedError

    def parse(self, value: object) -> Any:
        """The Python value of a TOML value. Raises BadValue."""
        raise NotImplementedError

    def refuse(self, value: object, hint: str = "") -> BadValue:
        """The error for an unexpected value."""
        return BadValue(f"expected {self.expected}, got {toml_text(value)}{hint and '; ' + hint}")


@dataclass(eq=False, repr=False)
class Integer(Kind):
    """An integer, bounds included."""

    minimum: int
    maximum: int

    @property
    def expected(self) -> str:
        return f"an integer from {self.minimum} to {self.maximum}"

    def parse(self, value: object) -> int:
        if isinstance(value, str) and re.fullmatch("[0-9]+", value):
            raise self.refuse(value, "write it without quotes")
        if isinstance(value, bool) or not isinstance(value, int) or not self.minimum <= value <= self.maximum:
            raise self.refuse(value)
        return value


class Boolean(Kind):
    """true or false."""

    @property
    def expected(self) -> str:
        return "true or false"

    def parse(self, value: object) -> bool:
        if not isinstance(value, bool):
            raise self.refuse(value)
        return value


@dataclass(eq=False, repr=False)
class Choice(Kind):
    """One word of ``built``."""

    built: tuple[str, ...]

    @property
    def expected(self) -> str:
        return self._words if len(self.built) == 1 else f"one of {self._words}"

    @property
    def _words(self) -> str:
        return ", ".join(map(quoted, self.built))

    def parse(self, value: object) -> str:
        if not isinstance(value, str):
            raise self.refuse(value)
        if value not in self.built:
            near = nearest(value, self.built)
            raise self.refuse(value, near and f"did you mean {quoted(near)}?")
        return value


@dataclass(eq=False, repr=False)
class Text(Kind):
    """A string of printable characters, not empty."""

    what: str = "a string"
    maximum: int = 255

    @property
    def expected(self) -> str:
        return f"{self.what} of 1 to {self.maximum} printable characters"

    def parse(self, value: object) -> str:
        if not isinstance(value, str) or not value.isprintable() or not 1 <= len(value.strip()) <= self.maximum:
            raise self.refuse(value)
        return value.strip()


@dataclass(eq=False, repr=False)
class FilterTexts(Kind):
    """A packet filter, or a list of alternatives, parsed to a tuple of strings. Not compiled here.

    An empty string selects every packet.
    """

    maximum: int = 1000

    @property
    def expected(self) -> str:
        return f'a filter such as "tcp,80" or "host 192.0.2.1", or a list of them, of at most {self.maximum} characters'

    def parse(self, value: object) -> tuple[str, ...]:
        texts = value if isinstance(value, (list, tuple)) else [value]
        found = [text.strip() for text in texts if isinstance(text, str) and text.isprintable()]
        if not found or len(found) < len(texts) or sum(map(len, found)) > self.maximum:
            raise self.refuse(value)
        return tuple(found)


class FilePath(Kind):
    """The path of a file, or an empty string for none. Does not look at the file."""

    @property
    def expected(self) -> str:
        return 'the path of a file, or ""'

    def parse(self, value: object) -> str:
        if not isinstance(value, str) or not value.isprintable() or value != value.strip():
            raise self.refuse(value)
        return value


class FolderPath(FilePath):
    """The absolute path of a folder, or an empty string for none. Does not look at the folder."""

    @property
    def expected(self) -> str:
        return 'the absolute path of a folder, or ""'

    def parse(self, value: object) -> str:
        path = super().parse(value)
        if path and not path.startswith("/"):
            raise self.refuse(value)
        return path


class AbsoluteFilePath(FolderPath):
    """The absolute path of a file, or an empty string for none. Does not look at the file."""

    @property
    def expected(self) -> str:
        return 'the absolute path of a file, or ""'

    def parse(self, value: object) -> str:
        path = super().parse(value)
        if path.endswith("/"):
            raise self.refuse(value, "this is a folder")
        return path


@dataclass(eq=False, repr=False)
class Scaled(Kind):
    """A whole number with its unit, such as "5s". The bounds are written the same way and are included."""

    minimum: str
    maximum: str
    what: ClassVar[str]
    units: ClassVar[dict[str, int]]

    @property
    def expected(self) -> str:
        units = ", ".join(self.units)
        return f'{self.what} from "{self.minimum}" to "{self.maximum}" (a whole number and one of {units}, in quotes)'

    def parse(self, value: object) -> int:
        low, number, high = (self._scaled(text) for text in (self.minimum, value, self.maximum))
        if not low <= number <= high:
            raise self.refuse(value)
        return number

    def _scaled(self, value: object) -> int:
        """The number times its unit; -1 for any other text. No bound has as many as 12 digits."""
        pattern = f"([0-9]{{1,12}})({'|'.join(self.units)})"
        match = re.fullmatch(pattern, value) if isinstance(value, str) else None
        return int(match[1]) * self.units[match[2]] if match else -1


class Duration(Scaled):
    """A time, parsed to int ns."""

    suffix = "_ns"
    what = "a time"
    units: ClassVar[dict[str, int]] = {"ms": 1_000_000, "s": 1_000_000_000, "m": 60_000_000_000, "h": 3_600_000_000_000}


class Size(Scaled):
    """An amount of memory, parsed to bytes."""

    suffix = "_bytes"
    what = "a size"
    units: ClassVar[dict[str, int]] = {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}


class Volume(Size):
    """A size for a key whose name already says that it is in bytes."""

    suffix = ""
