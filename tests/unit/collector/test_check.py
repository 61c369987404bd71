"""``netobs listen --check``: what it calls odd, in files and from the network, and what it does not."""

from __future__ import annotations

import io
import json
import struct
from pathlib import Path

import pytest

from lab.messages import OPTIONS9, message, message9, template
from lab.samples import golden_messages
from netobs.collector.check import Checker
from netobs.collector.decode import Damaged, Decoder
from netobs.collector.output import Enough
from netobs.collector.sockets import Exporter
from tests.unit.collector.test_decode_devices import described
from tests.unit.collector.test_files import listen, saved

TIME_S = 1_700_000_000
UDP, TCP = Exporter("udp", "192.0.2.1", 5000), Exporter("tcp", "192.0.2.1", 5000)
SAMPLING = (34, 4)


def show(checker: Checker, decoder: Decoder, raw: bytes, origin: object) -> None:
    try:
        checker.show(decoder.decode(raw, origin), origin, {})
    except Damaged as error:
        checker.problem(origin, str(error))


def checked(*messages: bytes, origin: object = UDP, now_s: int | None = TIME_S, as_json: bool = False) -> list[str]:
    """The lines for ``messages`` of one exporter."""
    decoder, out = Decoder(), io.StringIO()
    checker = Checker(out, as_json, now_s=None if now_s is None else lambda: now_s)
    for raw in messages:
        show(checker, decoder, raw, origin)
    checker.end()
    assert checker.is_odd == (out.getvalue() not in ("nothing odd\n", ""))
    return out.getvalue().splitlines()


def found(*messages: bytes, origin: object = UDP, now_s: int | None = TIME_S) -> set[str]:
    lines = checked(*messages, origin=origin, now_s=now_s)
    return {line.split(": ")[1] for line in lines if line.startswith("in all: ")}


def flow(*fields: tuple[int, ...], raw: bytes = b"", extra: tuple[tuple[int, bytes], ...] = ()) -> bytes:
    """A Message with a Template of ``fields`` and the sampling rate, and one flow."""
    return message((2, template(300, *fields, SAMPLING)), (300, raw + struct.pack("!I", 1)), *extra)


def after(sequence: int, raw: bytes) -> bytes:
    """``raw`` with another Sequence Number."""
    return raw[:8] + struct.pack("!I", sequence) + raw[12:]


GOOD = flow((4, 1), raw=b"\6")
TIMES = ((152, 8), (153, 8))


def times(start_ms: int, end_ms: int) -> bytes:
    return flow(*TIMES, raw=struct.pack("!QQ", TIME_S * 1000 + start_ms, TIME_S * 1000 + end_ms))


def test_nothing_is_odd_in_a_good_stream() -> None:
    assert checked(GOOD) == ["nothing odd"]
    assert checked(*golden_messages("netflow5.hex"), now_s=None) == ["nothing odd"]
    assert checked(times(-5, 900)) == ["nothing odd"]


@pytest.mark.parametrize(
    "messages", [golden_messages(), golden_messages("netflow9_default.hex")], ids=["ipfix", "netflow9"]
)
def test_all_that_is_odd_in_the_templates_of_netobs_without_options_is_sampling(messages: list[bytes]) -> None:
    assert found(*messages) == {"no-sampling"}


@pytest.mark.parametrize(
    ("messages", "kinds"),
    [
        ([GOOD, message((300, b"\6\0\0\0\1"), sequence=4)], {"sequence-gap"}),
        ([GOOD, message((301, b"\6"), sequence=1)], {"no-template"}),
        ([GOOD, after(1, flow((4, 1), (60, 1), raw=b"\6\4"))], {"template-changed"}),
        ([times(900, 100)], {"start-after-end"}),
        ([times(0, 2_500)], {"end-after-export"}),
        ([flow((4, 1, 9), raw=b"\6")], {"unknown-element"}),
        ([flow((4, 1), raw=b"\6", extra=((4, b""),))], {"reserved-set"}),
        ([GOOD + b"\1\2"], {"surplus"}),
        ([GOOD[:-1]], {"malformed"}),
        ([message((2, template(300, (4, 1))), (300, b"\6"))], {"no-sampling"}),
        ([message9((0, template(300, (4, 1), SAMPLING)), (300, b"\6\0\0\0\1"), count=7)], {"count"}),
        ([message9((0, template(300, (4, 1), SAMPLING)), (300, b"\6\0\0\0\1"), count=2, end=bytes(64))], {"fill"}),
        ([flow((22, 4), (21, 4), raw=bytes(8))], {"no-init-time"}),
        ([flow((4, 1), raw=b"\6", extra=((300, b""),))], {"no-record"}),
        ([OPTIONS9], set()),
        ([described((9, 4, 1, b"mine")), after(1, flow((4, 1, 9), raw=b"\6"))], set()),
    ],
)  # fmt: skip
def test_what_is_odd(messages: list[bytes], kinds: set[str]) -> None:
    assert found(*messages) == kinds


@pytest.mark.parametrize(("offset_s", "is_odd"), [(0, False), (60, False), (-60, False), (61, True), (-61, True)])
def test_export_time(offset_s: int, is_odd: bool) -> None:
    assert ("export-time" in found(GOOD, now_s=TIME_S - offset_s)) == is_odd
    if is_odd:
        word = "ahead of" if offset_s > 0 else "behind"
        assert f"Export Time is 61 s {word} the clock of this host" in checked(GOOD, now_s=TIME_S - offset_s)[0]


def test_withdrawals_are_odd_over_udp_only() -> None:
    withdrawal = message((2, b"\1\x2c\0\0"), sequence=1)
    assert found(GOOD, withdrawal) == {"withdrawal"}
    assert found(GOOD, withdrawal, origin=TCP) == set()


def test_a_kind_is_said_at_the_1st_10th_and_100th_time() -> None:
    lines = checked(*[message((301, b"\6"))] * 250)
    assert lines == [
        "192.0.2.1 port 5000 (udp), domain 1: no-template: data of Template 301, which was not sent",
        *(
            "192.0.2.1 port 5000 (udp), domain 1: no-template: data of Template 301, which was not sent "
            f"({times} times so far)"
            for times in (10, 100)
        ),
        "in all: no-template: 250 times, 1 source",
    ]


def test_as_json() -> None:
    *_, first, last = (json.loads(line) for line in checked(GOOD, message((301, b"\6"), sequence=1), as_json=True))
    assert first == {
        "exporter": "192.0.2.1 port 5000 (udp)",
        "observationDomainId": 1,
        "odd": "no-template",
        "times": 1,
        "text": "data of Template 301, which was not sent",
    }
    assert last == {"odd": "no-template", "times": 1, "sources": 1}
    assert checked(GOOD, as_json=True) == []


def test_sources_that_somebody_invents_do_not_fill_the_memory() -> None:
    decoder, out = Decoder(), io.StringIO()
    checker = Checker(out)
    for domain in range(10_000):
        checker.show(decoder.decode(message((301, b"\6"), domain=domain)), UDP, {})
    checker.end()
    assert len(checker._counts) <= 8193
    assert out.getvalue().splitlines()[-1].startswith("in all: no-template: 10000 times, 81")


def test_once() -> None:
    checker = Checker(io.StringIO(), once=2)
    decoded = Decoder().decode(GOOD)
    checker.show(decoded, UDP, {})
    with pytest.raises(Enough):
        checker.show(decoded, UDP, {})


@pytest.mark.parametrize(
    ("messages", "status", "lines"),
    [
        ([GOOD], 0, ["nothing odd"]),
        (
            [GOOD, message((301, b"\6"), sequence=1)],
            3,
            ["FILE, domain 1: no-template: data", "in all: no-template: once, 1"],
        ),
        ([GOOD, GOOD[:20]], 1, ["FILE: malformed: ", "in all: malformed: once, 1 source"]),
    ],
)
def test_the_exit_status_of_a_file(messages: list[bytes], status: int, lines: list[str], tmp_path: Path) -> None:
    path = saved(tmp_path, "a.ipfix", *messages)
    done = listen("--check", "--file", path)
    assert done.returncode == status
    found = done.stdout.replace(str(path), "FILE").splitlines()
    assert [line[: len(start)] for line, start in zip(found, lines)] == lines
    assert len(found) == len(lines)


def test_options_have_no_meaning_with_check() -> None:
    done = listen("--check", "--options", "--file", "a")
    assert done.returncode == 2
    assert "--options has no effect with --check" in done.stderr
