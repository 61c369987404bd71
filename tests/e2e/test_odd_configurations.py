"""Configurations that are accepted but not meant, or cannot work: --dry-run, the daemon and a reload say the same."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.certificates import Authority
from lab.daemon import Daemon, Table, configuration, netobs
from lab.namespaces import Lab

pytestmark = pytest.mark.e2e(tools=("ip", "openssl"))


@pytest.fixture
def site(lab: Lab) -> str:
    """A namespace with veth0, which has 192.0.2.1/24."""
    far = lab.pair()[1]
    lab.run(far.ns, ["ip", "address", "add", "192.0.2.1/24", "dev", "veth0"])
    return far.ns


def dry_run(lab: Lab, ns: str, folder: Path, text: str) -> tuple[int, list[str], list[str]]:
    """Its exit status, warnings and problems. The file is in ``folder``, which its user may look into."""
    conf = folder / "dry.toml"
    conf.write_text(text, encoding="utf-8")
    done = netobs(lab, ns, "--conf", str(conf), "--dry-run")
    assert "Traceback" not in done.stdout + done.stderr
    lines = done.stdout.splitlines()
    said = [[same(line[len(what) :]) for line in lines if line.startswith(what)] for what in ("warning: ", "problem: ")]
    return done.returncode, said[0], said[1]


def warnings_in(log: str) -> list[str]:
    return [same(line) for line in re.findall(r"^\S+ \S+ WARNING (?:reload: )?(.*)$", log, re.MULTILINE)]


def same(line: str) -> str:
    """Without what is free on the disk at the moment, and without the file that it is said of."""
    return re.sub(r"spool_max: .* MiB", "spool_max: MiB", re.sub(r"^/\S+\.toml: ", "", line))


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that all users come to."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


def odd(tmp_path: Path, open_folder: Path) -> tuple[str, list[str]]:
    """A file with everything that is odd and works; what has to be said of it, in parts."""
    authority = Authority(open_folder)
    own = authority.issue("exporter")
    own.key.chmod(0o644)
    tls: Table = {"transport": "tls", "ca": str(authority.ca), "cert": str(own.cert), "key": str(own.key)}
    collectors: list[Table] = [
        {"name": "plain"},
        {"name": "name", "host": "localhost"},
        {"name": "rate", "port": 1, "spool_rate": "1MiB", "spool_max": "8MiB"},
        {"name": "five", "port": 2, "protocol": "netflow5", "template": "minimal", "options_refresh": "5s"},
        {"name": "source", "port": 3, "host": "192.0.2.2", "source": "192.0.2.77"},
        {"name": "group", "port": 4, "host": "239.1.2.3"},
        {"name": "wire", "port": 5, "host": "192.0.2.255"},
        {"name": "zone", "port": 6, "host": "fe80::1%nosuch"},
        {"name": "tcp", "port": 7, "transport": "tcp", "template_refresh": "5s", "max_message_size": 600},
        {"name": "parent", "port": 8, "spool": str(tmp_path / "a/b")},
        {"name": "linked", "port": 9, "spool": str(tmp_path / "linked")},
        {"name": "tls", "port": 10, **tls},
        {"name": "space", "port": 11, "spool": str(tmp_path / "spool"), "spool_max": "1024GiB"},
    ]
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "linked").symlink_to(tmp_path)
    capture = {"interfaces": ["veth0", "eth9", "tap*"], "exclude": ["tap77", "lo"]}
    metering = {"idle_timeout": "2m"}
    said = [
        '[capture] interfaces: the host has no "eth9" now',
        '[capture] exclude: the host has no "tap77" now',
        '[capture] exclude: "lo" has no effect: interfaces does not match it',
        "[metering] idle_timeout is longer than active_timeout",
        '[collector "name"] host: 127.0.0.1:4739 is collector "plain", too',
        '[collector "rate"] spool_rate has no effect without spool',
        '[collector "rate"] spool_max has no effect without spool',
        '[collector "five"] template has no effect with netflow5',
        '[collector "five"] options_refresh has no effect with netflow5',
        '[collector "source"] source: 192.0.2.77 is no address of this host now: nothing is sent until it is',
        '[collector "group"] host: 239.1.2.3 is a multicast group',
        '[collector "wire"] host: 192.0.2.255 is a broadcast address here',
        '[collector "zone"] host: the host has no interface "nosuch" now',
        '[collector "tcp"] template_refresh has no effect over TCP and TLS',
        '[collector "tcp"] max_message_size has no effect over TCP and TLS',
        f'collector "parent": spool {tmp_path}/a: No such file or directory; flows wait in memory, and the spool',
        f'collector "linked": spool {tmp_path}/linked/linked: is a symbolic link, which is not followed',
        f'[collector "tls"] key: every user of this host may read "{own.key}"',
        '[collector "space"] spool_max: ',
    ]
    return configuration(capture, metering, collectors), said


def test_what_is_odd_is_said_by_all_in_the_same_words(lab: Lab, site: str, tmp_path: Path, open_folder: Path) -> None:
    text, parts = odd(tmp_path, open_folder)
    with Daemon(lab, site, tmp_path, text) as daemon:
        daemon.wait_for("arrives there twice")
        code, warnings, problems = dry_run(lab, site, tmp_path, text)
        assert (code, problems) == (0, [])
        for part in parts:
            assert sum(part in line for line in warnings) == 1, part
        assert len(warnings) == len(parts)
        assert set(warnings) <= set(warnings_in(daemon.log))
        # What is not new is not opened again: its spool has nothing to say.
        again = daemon.reload(text)
        daemon.wait_for("reload: done")
        assert {line for line in warnings if ": spool " not in line} <= {*warnings_in(again), *warnings_in(daemon.log)}
        for line in warnings:
            if "[collector" in line and "twice" not in line:
                assert line in warnings_in(again)


def test_what_cannot_work_is_refused_by_all_in_the_same_words(lab: Lab, site: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    broken: dict[str, tuple[Table, str]] = {
        "ending": ({"template": "default.toml"}, 'No such file or directory; did you mean "default"?'),
        "file": ({"spool": str(tmp_path / "file")}, f"spool {tmp_path}/file: Not a directory; set spool to a folder"),
        "proc": ({"spool": "/proc/netobs"}, "spool /proc: is in a file system that takes no files (proc)"),
    }
    collectors = [{"name": name, "port": port, **keys} for port, (name, (keys, _)) in enumerate(broken.items(), 1)]
    with Daemon(lab, site, tmp_path, configuration()) as daemon:
        text = configuration(collectors=collectors)
        said = daemon.reload(text)
        assert "reload: failed" in said
        code, _, problems = dry_run(lab, site, tmp_path, text)
        assert code == 1
        assert len(problems) == len(broken)
        for _, part in broken.values():
            assert sum(part in problem for problem in problems) == 1, part
        assert all(f" ERROR reload: {problem}" in said for problem in problems)
        assert daemon.stop() == 0
    conf = tmp_path / "start.toml"
    for number in range(len(broken)):
        conf.write_text(configuration(collectors=collectors[number:]), encoding="utf-8")
        done = netobs(lab, site, "--conf", str(conf))
        assert done.returncode == 1
        assert done.stderr == f"netobs: {problems[number]}\n"


# What is in a [[collector]] or [capture], and what is said behind the name of the file.
MISTAKES: list[tuple[str, dict[str, Any], str]] = [
    ("collector", {"host": "255.255.255.255"}, "a broadcast address cannot be sent to"),
    ("collector", {"host": "0.0.0.0"}, "this address does not belong to a host"),
    ("collector", {"host": "::"}, "this address does not belong to a host"),
    ("collector", {"host": "fe80::1"}, "a link-local address needs its interface"),
    ("collector", {"host": "224.0.0.1", "transport": "tcp"}, "a multicast group accepts no TCP connection; use udp"),
    ("collector", {"host": "0x7f000001"}, 'an IPv4 address has four decimal numbers: write "127.0.0.1"'),
    ("collector", {"host": "2130706433"}, 'an IPv4 address has four decimal numbers: write "127.0.0.1"'),
    ("collector", {"host": "127.1"}, 'an IPv4 address has four decimal numbers: write "127.0.0.1"'),
    ("collector", {"host": "a", "source": "224.0.0.5"}, "a host cannot send from a multicast or broadcast address"),
    ("capture", {"exclude": ["*"], "interfaces": ["*"]}, '"*" leaves out every interface'),
]


def test_what_can_never_work_is_refused_before_the_host_is_looked_at(lab: Lab, site: str, tmp_path: Path) -> None:
    collectors = [{"name": str(n), **keys} for n, (table, keys, _) in enumerate(MISTAKES) if table == "collector"]
    capture = next(keys for table, keys, _ in MISTAKES if table == "capture")
    conf = tmp_path / "netobs.toml"
    conf.write_text(configuration(capture, collectors=collectors), encoding="utf-8")
    said = [netobs(lab, site, "--conf", str(conf), *options) for options in (["--dry-run"], [])]
    assert [each.returncode for each in said] == [1, 1]
    assert said[0].stderr == said[1].stderr
    lines = said[0].stderr.splitlines()
    assert len(lines) == len(MISTAKES)
    for _, _, part in MISTAKES:
        assert any(part in line for line in lines), part
    assert os.listdir(tmp_path) == ["netobs.toml"]
