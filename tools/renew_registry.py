"""Renew netobs/encode/information_elements.csv from IANA's registry of IPFIX Information Elements.

    1. Get ipfix-information-elements.csv, the "CSV" of the table "IPFIX Information Elements", from
       https://www.iana.org/assignments/ipfix (its content is CC0).
    2. python3 tools/renew_registry.py ipfix-information-elements.csv
    3. Read the lines that it prints: a changed or missing element may be one that netobs sends. Then `make check`.

Rows without a name or a type (reserved, unassigned) are left out. The length follows from the type.
"""

from __future__ import annotations

import csv
import re
import sys
from collections.abc import Iterable
from pathlib import Path

FILE = Path(__file__).resolve().parent.parent / "netobs" / "encode" / "information_elements.csv"
TITLE = "id,name,type,length,semantics,units"
COLUMNS = ("ElementID", "Name", "Abstract Data Type", "Data Type Semantics", "Units")
"""Those of IANA's file that are read."""
LENGTHS = {
    **{f"{sign}signed{bits}": bits // 8 for sign in ("", "un") for bits in (8, 16, 32, 64)},
    "unsigned256": 32,
    "float32": 4,
    "float64": 8,
    "boolean": 1,
    "macAddress": 6,
    "ipv4Address": 4,
    "ipv6Address": 16,
    "dateTimeSeconds": 4,
    **{f"dateTime{unit}": 8 for unit in ("Milliseconds", "Microseconds", "Nanoseconds")},
}
"""Octets by abstract data type (RFC 7011, 6.1; RFC 9740); the others have no fixed length."""
VARIABLE = ("string", "octetArray", "basicList", "subTemplateList", "subTemplateMultiList")
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9]*")
_WORDS = re.compile(r"[A-Za-z0-9 -]*")


def converted(lines: Iterable[str]) -> list[str]:
    """The lines of our file for those of IANA's. Raises ValueError, which names the row."""
    reader = csv.DictReader(lines)
    missing = [column for column in COLUMNS if column not in (reader.fieldnames or ())]
    if missing:
        raise ValueError(f"no column {', '.join(missing)}: is it IANA's ipfix-information-elements.csv?")
    found: dict[int, str] = {}
    for row in reader:
        number, name, kind, semantics, units = (" ".join((row[column] or "").split()) for column in COLUMNS)
        if not number.isdecimal() or not kind or not _NAME.fullmatch(name):
            continue
        if kind not in LENGTHS and kind not in VARIABLE:
            raise ValueError(
                f"element {number}, {name}: unknown type {kind}; add it here and to netobs.encode.registry"
            )
        if not _WORDS.fullmatch(semantics + units) or int(number) in found:
            raise ValueError(f"element {number}, {name}: there twice, or with odd semantics {semantics!r}, {units!r}")
        found[int(number)] = ",".join((number, name, kind, str(LENGTHS.get(kind, "var")), semantics, units))
    return [TITLE, *(found[number] for number in sorted(found))]


def main(argv: list[str]) -> int:
    if len(argv) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    before = FILE.read_text(encoding="utf-8").splitlines()
    try:
        with open(argv[1], encoding="utf-8-sig", newline="") as file:
            after = converted(file)
    except (OSError, ValueError) as error:
        print(f"{argv[1]}: {error}", file=sys.stderr)
        return 1
    for line in sorted(set(before) ^ set(after), key=lambda line: (line.partition(",")[0].rjust(5), line in after)):
        print("+" if line in after else "-", line)
    FILE.write_text("\n".join(after) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
