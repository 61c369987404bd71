"""``netobs doctor`` beside a running daemon, as an operator calls it: what is wrong with the daemon and its rights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lab.daemon import Daemon, configuration, netobs
from lab.libraries import hidden
from lab.namespaces import Lab, Link
from lab.programs import wait_until
from lab.taps import make_taps
from netobs import config
from netobs.base.capabilities import BPF
from netobs.doctor import process

pytestmark = pytest.mark.e2e(tools=("setpriv", "prlimit", "mount", "ldconfig"))

LIMIT = 70
WITHOUT_PERFMON = ("setpriv", "--bounding-set=-perfmon,-sys_admin")


@pytest.fixture
def host(lab: Lab) -> Link:
    """The interface veth0 of a namespace."""
    return lab.pair()[1]


def write(tmp_path: Path, text: str) -> str:
    path = tmp_path / "netobs.toml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def doctor(lab: Lab, ns: str, conf: str, *arguments: str, **options: Any) -> dict[str, Any]:
    """What ``netobs doctor --json`` prints; its exit status follows from the findings."""
    done = netobs(lab, ns, "--conf", conf, "doctor", "--json", *arguments, **options)
    assert done.stderr == ""
    report: dict[str, Any] = json.loads(done.stdout)
    bad = any(each["severity"] in ("problem", "warning") for each in report["findings"])
    assert done.returncode == (3 if bad else 0)
    return report


def of(report: dict[str, Any], name: str) -> list[dict[str, Any]]:
    return [each for each in report["findings"] if each["id"] == name]


def one(report: dict[str, Any], name: str) -> dict[str, Any]:
    """The only finding of this name."""
    (found,) = of(report, name)
    return found


def test_a_missing_capability_is_named(lab: Lab, host: Link, tmp_path: Path) -> None:
    conf = write(tmp_path, configuration())
    report = doctor(lab, host.ns, conf, prefix=WITHOUT_PERFMON)
    assert "no netobs daemon answers at /run/netobs/control-" in one(report, "no-daemon")["what"]
    missing = one(report, "capability-missing")
    assert (missing["severity"], missing["what"]) == ("problem", "this process lacks CAP_PERFMON")
    assert missing["remedy"].startswith("add CAP_PERFMON to CapabilityBoundingSet=")


def test_a_user_without_rights_is_told_what_was_not_seen(lab: Lab, host: Link, tmp_path: Path) -> None:
    report = doctor(lab, host.ns, write(tmp_path, configuration()), capabilities=())
    missing = one(report, "capability-missing")
    assert missing["severity"] == "note"
    unseen = " ".join(each["what"] for each in of(report, "not-seen"))
    assert "the programs on TCX hooks" in unseen
    assert "the BPF features of the kernel" in unseen
    assert [each["name"] for each in report["interfaces"] if each["selected"]] == ["veth0"]


def test_a_host_without_libbpf_sys_and_proc(lab: Lab, host: Link, tmp_path: Path) -> None:
    steps = [*hidden(tmp_path, "libbpf"), *(f"mount -t tmpfs netobs-test {folder}" for folder in ("/sys", "/proc"))]
    prefix = ("sh", "-euc", "\n".join([*steps, 'exec "$@"']), "sh")
    report = doctor(lab, host.ns, write(tmp_path, configuration()), prefix=prefix)
    missing = one(report, "libbpf")
    assert (missing["severity"], "libbpf.so.1 is not installed" in missing["what"]) == ("problem", True)
    assert "the programs on TCX hooks" in one(report, "not-seen")["what"]
    assert [each["name"] for each in report["interfaces"] if each["selected"]] == ["veth0"]


def test_a_full_table_of_descriptors(lab: Lab, host: Link, tmp_path: Path) -> None:
    taps = [f"tap{number}" for number in range(30)]
    make_taps(host.ns, taps)
    text = configuration({"interfaces": ["veth0", "tap*"], "attach": "tcx"})
    with Daemon(lab, host.ns, tmp_path, text, prefix=("prlimit", f"--nofile={LIMIT}:{LIMIT}")) as daemon:
        wait_until(lambda: "not measured: each interface and direction takes" in daemon.log, "it has no more of them")
        report = doctor(lab, host.ns, str(daemon.conf))
        full = one(report, "descriptors-full")
        assert full["severity"] == "problem"
        assert f" of {LIMIT} descriptors open" in full["what"]
        assert "LimitNOFILE=" in full["remedy"]
        left_out = one(report, "not-attached")
        assert left_out["severity"] == "problem"
        assert {name.split()[0] for name in left_out["where"]} < set(taps)
        assert one(report, "daemon-capabilities")["severity"] == "ok"
        said = [each["what"] for each in of(report, "daemon-problem") if each["what"].startswith("not measured: ")]
        assert len(said) == 1
        assert "each interface and direction takes a file descriptor" in said[0]


def test_a_daemon_that_has_given_up_its_capabilities(lab: Lab, host: Link, tmp_path: Path) -> None:
    text = configuration({"drop_capabilities": True, "attach": "tcx"})
    with Daemon(lab, host.ns, tmp_path, text) as daemon:
        pid = daemon.process.pid
        wait_until(lambda: not (process.look(pid).permitted or 0) & BPF, "it gives them up")
        report = doctor(lab, host.ns, str(daemon.conf))
        assert f"process {pid}, is running" in one(report, "daemon")["what"]
        assert "has given up CAP_BPF" in one(report, "daemon-capabilities")["what"]
        assert of(report, "not-attached") == of(report, "no-daemon") == []
        settings = config.parse(configuration(), "netobs.toml")  # that do not want this
        (missing,) = (each for each in process.findings(process.look(pid), settings) if each.severity == "problem")
        assert missing.id == "daemon-capability-missing"
        assert "CAP_BPF" in missing.what


def test_a_daemon_in_another_namespace(lab: Lab, host: Link, tmp_path: Path) -> None:
    with Daemon(lab, host.ns, tmp_path, configuration()) as daemon:
        other = next(ns for ns in lab.leftovers() if ns != host.ns)
        report = doctor(lab, other, str(daemon.conf))
        assert one(report, "namespace-of-daemon")["remedy"] == f"nsenter -t {daemon.process.pid} -n netobs doctor"
        assert of(report, "not-attached") == []


def test_the_text_has_problems_first_and_a_bundle_is_written_once(lab: Lab, host: Link, tmp_path: Path) -> None:
    bundle, conf = tmp_path / "bundle.tar.gz", write(tmp_path, configuration({"sampling": 0}))
    done = netobs(lab, host.ns, "--conf", conf, "doctor", "--bundle", str(bundle))
    written = f"netobs: {bundle} written, {bundle.stat().st_size} bytes; read it before you send it\n"
    assert (done.returncode, done.stderr) == (3, written)
    first = next(line for line in done.stdout.splitlines()[1:] if line)
    assert first == "problem  configuration-mistake  configuration"
    assert "[capture] sampling: " in done.stdout
    assert "\x1b" not in done.stdout
    assert "\nveth0\n  ingress: nobody\n  egress: nobody\n" in done.stdout  # by the defaults
    done = netobs(lab, host.ns, "--conf", conf, "doctor", "--bundle", str(bundle))
    assert (done.returncode, done.stderr) == (1, f"netobs: {bundle}: there is a file of this name; name another\n")
