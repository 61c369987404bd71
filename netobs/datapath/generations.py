"""Which maps and programs the former process has kept, and what of them this one can go on with.

Programs, maps and their settings are one generation. The next process goes on with the last one as it is, or puts
other programs on its maps, or makes another generation: then the programs are swapped on their hooks, and the former
maps are read a last time, until they are freed. A process that is killed meanwhile leaves two generations.
"""

from __future__ import annotations

import functools
import hashlib
import json
import logging
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from string import ascii_lowercase
from typing import TYPE_CHECKING, Any

import numpy as np

from netobs.base.keeper import Keeper
from netobs.base.kept_record import KeptRecord
from netobs.datapath import layout as layouts
from netobs.datapath.layout import RecordLayout
from netobs.datapath.ledger import LedgerReading
from netobs.flow.metrics import METRICS
from netobs.kernel import host
from netobs.kernel.kept_object import KeptObject, kept_name, letter_of

log = logging.getLogger("netobs.capture")

MAY_DIFFER = {"hash_keys", "precise_time", "extra_groups", "preemptible", "tick_ns"}
"""Settings that the counts in the maps do not depend on."""

if TYPE_CHECKING:
    Settings = np.ndarray[tuple[int], np.dtype[np.void]]
else:  # numpy 1.21 has no such index
    Settings = np.ndarray


NEEDED = {"ledger": {"seen", "reasons"}, "state": {"active_half"}, "interface": {"seen"}}
"""Of structures that have more than what is counted."""


@functools.cache
def boot_id() -> str:
    """Of this start of the kernel: what a file says of maps is worth nothing after the next."""
    return host.read_if_there("/proc/sys/kernel/random/boot_id").strip()


def hash_of(path: Path) -> str:
    """Of a BPF object."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def described(layout: RecordLayout) -> dict[str, Any]:
    """What every byte in the maps means, for JSON: ``read_layout`` understands it, of an older or newer version too."""
    structures = {name: value.descr for name, value in layout._asdict().items() if isinstance(value, np.dtype)}
    bits = {name: value for name, value in vars(layouts).items() if name.startswith("SLOT_") or name == "HASH_KEYS"}
    parts = {"structures": structures, "reasons": layout.reasons, "object": layout.object, "encoding": bits}
    described: dict[str, Any] = json.loads(json.dumps(parts))
    return described


def read_layout(described_layout: dict[str, Any]) -> RecordLayout | None:
    """The layout that ``described`` has described; None if this version cannot read it: it packs numbers differently
    into fields, or needs fields that are not there. A metric that was not measured is 0."""
    if described_layout["encoding"] != described(layouts.PLAIN)["encoding"]:
        return None
    structures = {name: _dtype(fields) for name, fields in described_layout["structures"].items()}
    known = {name: dtype for name, dtype in structures.items() if name in RecordLayout._fields}
    layout = RecordLayout(**known, object=described_layout["object"], reasons=tuple(described_layout["reasons"]))
    mine = layouts.LAYOUTS.get(layout.object, layouts.PLAIN)
    is_readable = all(_needed(name, getattr(mine, name)) <= {*(of.names or ())} for name, of in known.items())
    return layout if is_readable else None


def _needed(structure: str, dtype: np.dtype[np.void]) -> set[str]:
    """The fields without which the maps cannot be read a last time."""
    not_needed = {"reserved", *(metric.name for metric in METRICS)}
    return NEEDED.get(structure, {*(dtype.names or ())} - not_needed)


def _dtype(fields: list[list[Any]]) -> np.dtype[np.void]:
    return np.dtype([
        (name, of if isinstance(of, str) else _dtype(of), *map(tuple, shape)) for name, of, *shape in fields
    ])  # fmt: skip


def settings_of(values: Settings) -> dict[str, Any]:
    """``values`` (shape ``(1,)``, dtype ``SETTINGS``) for JSON, by name."""
    return {name: values[name][0].tolist() for name in values.dtype.names or ()}


@dataclass(frozen=True)
class Manifest:
    """What the maps and programs of one generation are."""

    object: str
    layout: dict[str, Any]
    settings: dict[str, Any]
    entries: dict[str, int]
    """How many entries each map has."""
    programs: list[str]
    max_flows: int
    generation: int = 0
    drained: list[int] = field(default_factory=list)
    """The former generations whose counts were taken out."""
    ledger: dict[str, Any] = field(default_factory=dict)
    """The sum of their ledgers, as ``LedgerReading.as_json`` writes it."""
    boot: str = ""

    def has_same_maps(self, other: Manifest) -> bool:
        """Whether the programs of one could count in the maps of the other."""
        mine, its = ({name: value for name, value in each.settings.items() if name not in MAY_DIFFER}
                     for each in (self, other))  # fmt: skip
        return (self.layout, self.entries, mine) == (other.layout, other.entries, its)

    def has_same_programs(self, other: Manifest) -> bool:
        """Whether loading the programs again would change nothing, if they may have the hash keys of ``other``."""
        mine, its = ({**each.settings, "hash_keys": 0} for each in (self, other))
        return (self.object, self.layout, self.entries, mine) == (other.object, other.layout, other.entries, its)


def _manifest(values: dict[str, Any]) -> Manifest | None:
    """None if a version that differs too much has written it."""
    try:
        return Manifest(**{each.name: values[each.name] for each in fields(Manifest)})
    except KeyError:
        return None


class Generations:
    """The generations that ``keeper`` has. ``last``: the newest; ``former``: the others, whose counts must be taken
    out. What is of another start of the kernel, another version, or incomplete, is dropped at once."""

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper
        self._record = KeptRecord(-1)
        found = sorted(self._read(), key=lambda manifest: manifest.generation)
        drained = {number for manifest in found for number in manifest.drained}
        self.former = [manifest for manifest in found if manifest.generation not in drained]
        self.last = self.former.pop() if self.former else None
        alive = {letter_of(manifest.generation) for manifest in self._all}
        self._drop_letters({*ascii_lowercase} - alive)

    @property
    def _all(self) -> list[Manifest]:
        return self.former if self.last is None else [*self.former, self.last]

    def _read(self) -> Iterator[Manifest]:
        for letter in ascii_lowercase:
            fd = self._keeper.former(_manifest_name(letter))
            if fd is None:
                continue
            record = KeptRecord(fd)
            manifest = _manifest(record.read() or {})
            record.close()
            if manifest is not None and manifest.boot == boot_id() and self._is_complete(manifest):
                yield manifest

    def _is_complete(self, manifest: Manifest) -> bool:
        names = [kept_name("m", manifest.generation, name) for name in manifest.entries]
        names += [kept_name("p", manifest.generation, name) for name in manifest.programs]
        return self._keeper.names().issuperset(names)

    def _drop_letters(self, letters: Collection[str]) -> None:
        for name in self._keeper.names():
            if name[:1] in "mp" and name[2:3] == "-" and name[1] in letters:
                self._keeper.drop(name)
        for letter in letters:
            self._keeper.drop(_manifest_name(letter))

    def open(self, manifest: Manifest) -> KeptObject:
        """The maps and programs of a generation."""
        return KeptObject(self._keeper, manifest.generation, manifest.entries, manifest.programs)

    def keep(self, manifest: Manifest, obj: Any) -> None:
        """Keeps the maps and programs of ``obj`` for the next process, as the newest generation. The
        manifest comes last: without it, the rest counts for nothing."""
        number = 1 + max((each.generation for each in self._all), default=0)
        manifest = replace(manifest, generation=number, boot=boot_id())
        if self._keeper.keeps:
            for name in manifest.entries:
                self._keeper.keep(kept_name("m", number, name), obj.map_fd(name))
            for name in manifest.programs:
                self._keeper.keep(kept_name("p", number, name), obj.program_fd(name))
            self._record.close()
            self._record = KeptRecord(self._keeper.memory(_manifest_name(letter_of(number))))
            self._record.write(vars(manifest))
        if self.last is not None:
            self.former.append(self.last)
        self.last = manifest

    def keep_programs(self, manifest: Manifest, obj: Any) -> None:
        """Keeps other programs for the maps of ``last``."""
        assert self.last is not None
        last = self.last
        self.last = replace(last, object=manifest.object, settings=manifest.settings, programs=manifest.programs)
        self._rewrite(replace(self.last, object=""))  # what is loaded is not known, if this process ends here
        for name in manifest.programs:
            self._keeper.keep(kept_name("p", last.generation, name), obj.program_fd(name))
        self._rewrite(self.last)

    def go_on(self) -> None:
        """Uses ``last`` as it is."""
        assert self.last is not None
        self._rewrite(self.last)

    def drained(self, former: Manifest, ledger: LedgerReading) -> None:
        """Everything in the maps of ``former`` was taken out. ``ledger``: the sum of all former ledgers, with its."""
        assert self.last is not None
        self.last = replace(self.last, drained=[*self.last.drained, former.generation], ledger=ledger.as_json())
        self._rewrite(self.last)
        self.former.remove(former)
        self._drop_generation(former)

    def _rewrite(self, manifest: Manifest) -> None:
        name = _manifest_name(letter_of(manifest.generation))
        former = self._keeper.former(name)
        if former is not None and self._record.is_off:
            self._record = KeptRecord(former)
        self._record.write(vars(manifest))

    def _drop_generation(self, manifest: Manifest) -> None:
        for name in manifest.entries:
            self._keeper.drop(kept_name("m", manifest.generation, name))
        for name in manifest.programs:
            self._keeper.drop(kept_name("p", manifest.generation, name))
        self._keeper.drop(_manifest_name(letter_of(manifest.generation)))

    def drop_all(self) -> None:
        """Keeps nothing any more: for a stop."""
        for manifest in self._all:
            self._drop_generation(manifest)
        self._drop_letters(ascii_lowercase)
        self.former, self.last = [], None

    def close(self) -> None:
        """Keeps everything."""
        self._record.close()


def _manifest_name(letter: str) -> str:
    return f"manifest-{letter}"
