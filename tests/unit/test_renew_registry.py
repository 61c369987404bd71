"""tools/renew_registry.py: IANA's published table becomes the file that netobs reads."""

from __future__ import annotations

import csv
import io
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from netobs.encode.registry import TYPES, elements
from tools.renew_registry import FILE, LENGTHS, VARIABLE, converted

IANA = (
    *("ElementID", "Name", "Abstract Data Type", "Data Type Semantics", "Status", "Description", "Units", "Range"),
    *("Additional Information", "Reference", "Revision", "Date"),
)
"""The columns of IANA's file."""
TOOL = Path(__file__).resolve().parents[2] / "tools" / "renew_registry.py"
Row = tuple[str, str, str, str, str]


def published(*rows: Row) -> str:
    """A file as IANA publishes it: id, name, type, semantics and units of each row, and what else it says."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(IANA)
    for number, name, kind, semantics, units in rows:
        described = f'What "{name}" is,\nin two lines, with commas'
        writer.writerow(
            (number, name, kind, semantics, "current", described, units, "", "", "[RFC7012]", "0", "2013-02-18")
        )
    return text.getvalue()


def ours() -> list[Row]:
    lines = FILE.read_text(encoding="utf-8").splitlines()[1:]
    rows = [line.split(",") for line in lines]
    return [(number, name, kind, semantics, units) for number, name, kind, _, semantics, units in rows]


NOT_ELEMENTS: list[Row] = [
    ("0", "Reserved", "", "", ""),
    ("43", "Assigned for NetFlow v9 compatibility", "", "", ""),
    ("105-127", "Assigned for NetFlow v9 compatibility", "", "", ""),
    ("534-32767", "Unassigned", "", "", ""),
]


def test_the_file_of_now_comes_out_as_it_is() -> None:
    text = published(*NOT_ELEMENTS, *reversed(ours()))
    assert converted(io.StringIO(text, newline="")) == FILE.read_text(encoding="utf-8").splitlines()


def test_it_renews_the_file_and_says_what_has_changed(tmp_path: Path) -> None:
    tool, file = tmp_path / "tools" / "renew_registry.py", tmp_path / "netobs" / "encode" / FILE.name
    for path, source in ((tool, TOOL), (file, FILE)):
        path.parent.mkdir(parents=True)
        shutil.copy(source, path)
    rows = [row if row[0] != "4" else ("4", "protocolIdentifier", "unsigned16", "identifier", "") for row in ours()]
    table = tmp_path / "iana.csv"
    table.write_bytes(published(*rows, ("600", "newElement", "string", "", "")).encode("utf-8-sig"))
    done = subprocess.run([sys.executable, str(tool), str(table)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "- 4,protocolIdentifier,unsigned8,1,identifier,",
        "+ 4,protocolIdentifier,unsigned16,2,identifier,",
        "+ 600,newElement,string,var,,",
    ]
    assert file.read_text(encoding="utf-8").splitlines()[-1] == "600,newElement,string,var,,"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,name\n1,octetDeltaCount\n", "no column ElementID, Name, "),
        (published(("1", "one", "unsigned128", "", "")), "element 1, one: unknown type unsigned128"),
        (published(("1", "one", "string", "", "a,b")), "element 1, one: there twice, or with odd semantics"),
        (published(("1", "one", "string", "", ""), ("1", "two", "string", "", "")), "element 1, two: there twice"),
    ],
)
def test_what_is_not_iana_s_table_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        converted(io.StringIO(text, newline=""))


def test_it_knows_the_types_that_netobs_knows() -> None:
    assert set(TYPES) <= set(LENGTHS)
    assert {element.type for element in elements()} <= {*LENGTHS, *VARIABLE}
