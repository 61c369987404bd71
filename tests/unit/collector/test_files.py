"""``netobs listen --file`` and ``--options``: IPFIX files, whole and damaged, as an operator reads them."""

from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from lab.messages import message, options_template, template
from lab.samples import golden_messages

ROOT = Path(__file__).resolve().parents[3]
WAIT_S = 20
GOLDEN = golden_messages()
OPTIONS = message(
    (3, options_template(512, 1, (149, 4), (10, 4), (82, 16))), (512, struct.pack("!II16s", 42, 3, b"eth0\x1b[2J"))
)


def listen(*arguments: str | Path, stdin: bytes | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "netobs", "listen", *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, input=stdin, check=False, timeout=WAIT_S)
    assert b"Traceback" not in done.stderr
    return subprocess.CompletedProcess(command, done.returncode, done.stdout.decode(), done.stderr.decode())


def saved(folder: Path, name: str, *messages: bytes) -> Path:
    path = folder / name
    path.write_bytes(b"".join(messages))
    return path


def protocols(done: subprocess.CompletedProcess[str]) -> list[int]:
    return [json.loads(line)["protocolIdentifier"] for line in done.stdout.splitlines()]


ALL = [6, 17, 1, 1, 17, 6, 47, 6, 17, 58, 132, 58]


def test_a_file_is_printed_like_what_comes_from_the_network(tmp_path: Path) -> None:
    done = listen("--json", "--file", saved(tmp_path, "flows.ipfix", *GOLDEN))
    assert done.returncode == 0
    assert protocols(done) == ALL
    assert {json.loads(line)["observationDomainId"] for line in done.stdout.splitlines()} == {42}
    assert done.stderr == (
        "netobs listen: 12 flows in 5 Messages, 0 records lost, 0 Sets without a Template, 0 Messages malformed, "
        "0 options records\n"
    )


def test_a_table_of_standard_input() -> None:
    done = listen("--file", "-", stdin=b"".join(GOLDEN))
    assert done.returncode == 0
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["start"] + ["2023-11-14T22:13:11.123Z"] * 12


def test_several_files_in_their_order_each_with_its_own_templates(tmp_path: Path) -> None:
    """The Template of the second file has the number of the first, and the third has none."""
    other = saved(tmp_path, "b", message((2, template(256, (4, 1))), (256, b"\x63")))
    files = [saved(tmp_path, "a", *GOLDEN[:2]), other, saved(tmp_path, "c", GOLDEN[1])]
    done = listen("--json", "--file", *files)
    assert done.returncode == 0
    assert protocols(done) == [*ALL[:5], 99]
    assert "1 Sets without a Template" in done.stderr
    again = listen("--json", "--file", files[0], "--file", files[1])
    assert protocols(again) == [*ALL[:5], 99]


def test_enough_flows_end_it(tmp_path: Path) -> None:
    done = listen("--json", "--once", "6", "--file", saved(tmp_path, "a", *GOLDEN))
    assert (done.returncode, protocols(done)) == (0, ALL[:6])


BAD_SET = message((3, b""))[:-2] + b"\0\x09"
BAD_VERSION = b"\0\x0b" + GOLDEN[2][2:]
DAMAGED = {
    "a Set beyond its Message": ([*GOLDEN[:2], BAD_SET, *GOLDEN[2:]], ALL, 736, "malformed IPFIX Message: octet 18: "),
    "a version that is wrong": (
        [*GOLDEN[:2], BAD_VERSION, *GOLDEN[3:]],
        ALL[:5] + ALL[7:],
        736,
        "not an IPFIX Message: octet 0: version 11, expected 10 (IPFIX)\n",
    ),
    "a length below the header's": (
        [*GOLDEN[:2], b"\0\x0a\0\x0f" + bytes(12), *GOLDEN[2:]],
        ALL[:5],
        736,
        "not an IPFIX Message: octet 2: length 15 is less than that of the Message Header; the rest is not read\n",
    ),
    "a header that ends": ([*GOLDEN[:2], GOLDEN[2][:7]], ALL[:5], 736, "octet 7: a Message Header has 16 bytes; the"),
    "a Message that ends": ([*GOLDEN[:2], GOLDEN[2][:100]], ALL[:5], 736, "octet 100: the file ends, its length is"),
    "a file that is none": ([b"\x7fELF" + bytes(400)], [], 0, "octet 0: version 32581, expected 10 (IPFIX)\n"),
    "an empty length": ([bytes(64)], [], 0, "version 0, expected 10 (IPFIX); the rest is not read\n"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_damage_is_named_with_file_and_octet_and_left_out(case: str, tmp_path: Path) -> None:
    parts, flows, octet, text = DAMAGED[case]
    path = saved(tmp_path, "bad.ipfix", *parts)
    done = listen("--json", "--file", path, saved(tmp_path, "good", message((2, template(300, (4, 1))), (300, b"\7"))))
    assert done.returncode == 1
    assert protocols(done) == [*flows, 7]
    first = done.stderr.splitlines(keepends=True)[0]
    assert first.startswith(f"netobs listen: {path}: Message at octet {octet}: ")
    assert text in first


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    good = saved(tmp_path, "good", *GOLDEN)
    done = listen("--json", "--file", tmp_path / "none", tmp_path, good)
    assert done.returncode == 1
    assert protocols(done) == ALL
    assert done.stderr.splitlines()[:2] == [
        f"netobs listen: {tmp_path}/none: cannot be read: No such file or directory",
        f"netobs listen: {tmp_path}: cannot be read: Is a directory",
    ]


def test_an_empty_file_has_no_flows(tmp_path: Path) -> None:
    done = listen("--json", "--file", saved(tmp_path, "empty"))
    assert (done.returncode, done.stdout) == (0, "")


def test_options_as_json(tmp_path: Path) -> None:
    path = saved(tmp_path, "a", GOLDEN[0], OPTIONS, GOLDEN[1])
    first, *flows = [json.loads(line) for line in listen("--json", "--options", "--file", path).stdout.splitlines()]
    assert first == {
        "observationDomainId": 42,
        "optionsTemplateId": 512,
        "ingressInterface": 3,
        "interfaceName": "eth0\x1b[2J",
    }
    assert len(flows) == 5
    assert not any("optionsTemplateId" in flow for flow in flows)
    without = listen("--json", "--file", path)
    assert len(without.stdout.splitlines()) == 5
    assert without.stderr.endswith(", 1 options records\n")


def test_options_in_a_table_cannot_write_to_the_terminal(tmp_path: Path) -> None:
    path = saved(tmp_path, "a", OPTIONS)
    done = listen("--options", "--file", path)
    assert done.stdout.splitlines()[1:] == [
        f"# {path}, domain 1, options template 512: "
        'observationDomainId 42, ingressInterface 3, interfaceName "eth0\\u001b[2J"'
    ]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--port", "1", "--file", "a"], "--port has no effect with --file"),
        (["--host", "::1", "--file", "a"], "--host has no effect with --file"),
        (["a"], "unexpected argument 'a'; files follow --file"),
    ],
)
def test_wrong_usage(arguments: list[str], text: str) -> None:
    done = listen(*arguments)
    assert done.returncode == 2
    assert text in done.stderr


def test_a_signal_ends_the_wait_for_standard_input() -> None:
    command = [sys.executable, "-m", "netobs", "listen", "--json", "--file", "-"]
    pipe, env = subprocess.PIPE, {**os.environ, "PYTHONUNBUFFERED": ""}
    with subprocess.Popen(command, cwd=ROOT, env=env, stdin=pipe, stdout=pipe, stderr=pipe) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"".join(GOLDEN[:2]) + GOLDEN[2][:16])
        process.stdin.flush()
        first = [json.loads(process.stdout.readline()) for _ in range(5)]
        process.send_signal(signal.SIGTERM)
        output, said = process.communicate(timeout=WAIT_S)
    assert process.returncode == 0
    assert [flow["protocolIdentifier"] for flow in first] == ALL[:5]
    assert output == b""
    assert said.startswith(b"netobs listen: 5 flows in 2 Messages")


def test_a_signal_whose_exception_is_lost_still_counts() -> None:
    code = """
import os, signal
from netobs.collector.output import interruptible
class Last:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)
with interruptible() as check_signals:
    check_signals()
    Last()  # what is raised in __del__ is lost
    try:
        check_signals()
    except KeyboardInterrupt:
        print("it ends")
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "it ends\n"
    assert "Exception ignored" in done.stderr
