"""``netobs --dry-run`` says what the daemon would do and does nothing; mistakes are named, by the daemon too."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import pytest

from lab.cgroups import inside, memory_cgroup
from lab.collectors import UdpSink
from lab.daemon import EXIT_WITHIN_S, NETOBS, Daemon, configuration, netobs, traffic_control
from lab.namespaces import Lab, Link
from lab.programs import wait_until
from lab.taps import make_taps
from lab.traffic import REPOSITORY
from netobs.encode import load_templates
from netobs.encode.options.choice import DEFAULT_KINDS
from netobs.kernel.many import MANY

pytestmark = pytest.mark.e2e(tools=("tc", "bpftool", "setpriv"))

NO_CAPABILITIES = ("setpriv", "--bounding-set=-all", "--inh-caps=-all")
CONF = REPOSITORY / "conf"
SHIPPED = str(CONF / "netobs.toml")
SMALL_HOST = "MemTotal:  131072 kB\nMemAvailable:  65536 kB\n"


@pytest.fixture
def host(lab: Lab) -> Link:
    """The interface veth0 of a namespace."""
    return lab.pair()[1]


def write(tmp_path: Path, text: str) -> str:
    path = tmp_path / "netobs.toml"
    path.write_text(text, encoding="utf-8")
    tmp_path.chmod(0o755)
    return str(path)


def test_the_plan(lab: Lab, host: Link, tmp_path: Path) -> None:
    lab.veth(host.ns, host.ns, names=("tap7", "other"))
    before = traffic_control(lab, host.ns)
    conf = write(tmp_path, configuration({"interfaces": ["veth0", "tap*", "eth9"], "direction": "ingress"}))
    with UdpSink(host.ns) as sink:
        done = netobs(lab, host.ns, "--conf", conf, "--dry-run")
        assert sink.drain() == []
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[-1] == "netobs would start"
    assert f"configuration {conf}" in lines[0]
    assert os.uname().release in lines[1]
    assert "flow table percpu_array: 65536 flows, " in done.stdout
    assert "verified by the kernel, attach method tc" in done.stdout
    assert f"  veth0 (index {host.ifindex}): ingress, by tc" in done.stdout
    assert "  tap7 (index " in done.stdout
    assert "  eth9: not there now, attached when it appears" in lines
    assert "other" not in done.stdout
    assert "  address 127.0.0.1:4739" in lines
    ipv4, _ = load_templates("default")
    assert f"    {ipv4.id} ipv4: 26 elements, 96 octets" in lines
    kinds = [line.rpartition(": ")[2] for line in lines if " options records: " in line]
    assert kinds == [kind for kind in DEFAULT_KINDS if kind not in ("element_types", "namespaces")]  # no such elements
    assert traffic_control(lab, host.ns) == before


@pytest.mark.parametrize(("protocol", "sampling"), [("ipfix", 100), ("netflow9", 100), ("netflow5", 100), ("ipfix", 1)])
def test_a_sampling_rate_that_nothing_says_is_a_warning(
    lab: Lab, host: Link, tmp_path: Path, protocol: str, sampling: int
) -> None:
    collector = {"protocol": protocol, "template": "go-ipfix"}
    conf = write(tmp_path, configuration({"sampling": sampling}, collectors=[collector]))
    done = netobs(lab, host.ns, "--conf", conf, "--dry-run")
    assert (done.returncode, done.stderr) == (0, "")
    said = 'collector "127.0.0.1": template go-ipfix does not say the sampling rate: the collector shows 1/100 of'
    assert (f"warning: {said}" in done.stdout) == (sampling > 1 and protocol != "netflow5")
    with Daemon(lab, host.ns, tmp_path, Path(conf).read_text(encoding="utf-8")) as daemon:
        assert (f"WARNING {said}" in daemon.log) == (f"warning: {said}" in done.stdout)


def test_groups_of_collectors(lab: Lab, host: Link, tmp_path: Path) -> None:
    collectors = [{"name": name, "port": port} for name, port in (("a", 1), ("b", 2), ("c", 3))]
    group = {"name": "site", "collectors": ["c", "a"], "policy": "failover"}
    conf = write(tmp_path, configuration(collectors=collectors, groups=[group]))
    done = netobs(lab, host.ns, "--conf", conf, "--dry-run")
    assert (done.returncode, done.stderr) == (0, "")
    assert 'group "site": failover over "c", "a": the first that is up gets every flow' in done.stdout.splitlines()
    conf = write(tmp_path, configuration(collectors=collectors, groups=[{**group, "collectors": ["c", "d"]}]))
    done = netobs(lab, host.ns, "--conf", conf, "--dry-run")
    assert done.returncode != 0
    assert '[group 1 "site"] collectors: entry 2, "d": no collector has this name' in done.stdout + done.stderr


def test_the_configuration_that_is_shipped(lab: Lab, host: Link) -> None:
    done = netobs(lab, host.ns, "--conf", SHIPPED, "--dry-run")
    assert (done.returncode, done.stderr) == (0, "")
    assert "veth0 (index " in done.stdout


@pytest.mark.parametrize("path", sorted(CONF.glob("*.toml")), ids=lambda path: path.stem)
def test_the_examples_would_start(lab: Lab, path: Path) -> None:
    ns = lab.namespace()
    lab.veth(ns, ns, names=("eth0", "bond0"))
    done = netobs(lab, ns, "--conf", str(path), "--dry-run")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == "netobs would start"
    # Where the spool is to go differs from host to host, and so does what is free there.
    assert [line for line in done.stdout.splitlines() if line.startswith("warning") and "spool" not in line] == []


def test_a_tcp_collector_gets_no_connection(lab: Lab, host: Link, tmp_path: Path) -> None:
    conf = write(tmp_path, configuration(collectors=[{"transport": "tcp"}]))
    done = netobs(lab, host.ns, "--conf", conf, "--dry-run")
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "netobs would start")
    names, values = map(str.split, lab.run(host.ns, ["grep", "^Tcp:", "/proc/net/snmp"]).stdout.splitlines())
    assert values[names.index("ActiveOpens")] == "0"


def test_a_pattern_that_matches_nothing_yet_is_a_warning(lab: Lab, host: Link, tmp_path: Path) -> None:
    conf = write(tmp_path, configuration({"interfaces": ["tap*"]}))
    done = netobs(lab, host.ns, "--conf", conf, "--dry-run")
    assert done.returncode == 0
    assert "warning: capture.interfaces: nothing matches tap* now" in done.stdout


PROBLEMS = {
    "no such interface": (configuration({"interfaces": ["eth9"]}), "capture.interfaces: nothing matches eth9"),
    "name of the collector": (
        configuration(collectors=[{"host": "collector.invalid"}]),
        'collector "collector.invalid"',
    ),
    "no such template": (configuration(collectors=[{"template": "nonsense"}]), "nonsense"),
    "mistake in the template": (configuration(collectors=[{"template": "TEMPLATE"}]), "sourceIPv4Adress"),
}


@pytest.mark.parametrize("name", PROBLEMS)
def test_a_problem_is_named(lab: Lab, host: Link, tmp_path: Path, name: str) -> None:
    text, said = PROBLEMS[name]
    template = tmp_path / "own.toml"
    template.write_text('[[template]]\nid = 256\nfamily = "ipv4"\nelements = ["sourceIPv4Adress"]\n', encoding="utf-8")
    conf = write(tmp_path, text.replace("TEMPLATE", str(template)))
    done = netobs(lab, host.ns, "--conf", conf, "--dry-run")
    assert done.returncode == 1
    (problem,) = [line for line in done.stdout.splitlines() if line.startswith("problem: ")]
    assert said in problem
    assert done.stdout.splitlines()[-1] == "netobs would not start"
    assert "Traceback" not in done.stdout + done.stderr


def test_all_problems_are_listed(lab: Lab, host: Link, tmp_path: Path) -> None:
    collectors = [{"host": "collector.invalid"}, {"host": "192.0.2.1", "template": "nonsense"}]
    conf = write(tmp_path, configuration({"interfaces": ["eth9"]}, collectors=collectors))
    done = netobs(lab, host.ns, "--conf", conf, "--dry-run", prefix=NO_CAPABILITIES)
    problems = [line for line in done.stdout.splitlines() if line.startswith("problem: ")]
    assert done.returncode == 1
    assert len(problems) == 4
    for said in ("CAP_BPF", "eth9", "collector.invalid", "nonsense"):
        assert sum(said in line for line in problems) == 1
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.parametrize("option", [["--dry-run"], []], ids=["dry run", "daemon"])
def test_a_table_that_is_too_large_for_the_host(lab: Lab, host: Link, tmp_path: Path, option: list[str]) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text(SMALL_HOST, encoding="ascii")
    conf = write(tmp_path, configuration({"max_flows": 1_000_000}))
    # ip netns exec has made a mount namespace: nobody else sees this.
    small = ("sh", "-c", f'mount --bind {meminfo} /proc/meminfo && exec "$@"', "sh")
    done = netobs(lab, host.ns, "--conf", conf, *option, prefix=small)
    assert done.returncode == (1 if option else os.EX_TEMPFAIL)  # other programs may give memory back
    assert "capture.max_flows = 1000000 needs " in done.stdout + done.stderr
    assert "the host has 64 MiB left; lower it" in done.stdout + done.stderr


@pytest.mark.parametrize("option", [["--dry-run"], []], ids=["dry run", "daemon"])
def test_a_table_that_is_too_large_for_the_cgroup(lab: Lab, host: Link, tmp_path: Path, option: list[str]) -> None:
    conf = write(tmp_path, configuration({"max_flows": 500_000}))
    with memory_cgroup(256 << 20) as folder:
        done = netobs(lab, host.ns, "--conf", conf, *option, prefix=inside(folder))
    assert done.returncode == (1 if option else os.EX_TEMPFAIL)
    assert re.search(
        rf"capture.max_flows = 500000 needs \d+ MiB of kernel memory, the cgroup {folder} has \d+ MiB left; lower it",
        done.stdout + done.stderr,
    )


def test_a_flow_cache_that_is_too_large_for_the_cgroup(lab: Lab, host: Link, tmp_path: Path) -> None:
    conf = write(tmp_path, configuration())
    with memory_cgroup(192 << 20) as folder:
        planned = netobs(lab, host.ns, "--conf", conf, "--dry-run", prefix=inside(folder))
        with Daemon(lab, host.ns, tmp_path, configuration(), prefix=inside(folder), as_user=False) as daemon:
            daemon.finish()
    said = rf"memory: with full tables 2\d\d MiB are needed, the cgroup {folder} has \d+ MiB left; lower metering"
    assert planned.returncode == 0
    assert re.search(f"warning: {said}", planned.stdout)
    assert re.search(f"WARNING {said}", daemon.log)


@pytest.mark.parametrize("arguments", [["--dry-run"], [], ["capture", "--alone"]], ids=" ".join)
@pytest.mark.parametrize("missing", [["/sys"], ["/proc"], ["/proc", "/sys"]], ids=" and ".join)
def test_a_host_without_proc_or_sys(
    lab: Lab, host: Link, tmp_path: Path, missing: list[str], arguments: list[str]
) -> None:
    conf = write(tmp_path, configuration({"interfaces": ["veth0"]}))
    mounts = " && ".join(f"mount -t tmpfs none {each}" for each in missing)
    without = ("unshare", "--mount", "sh", "-c", f'{mounts} && exec "$@"', "sh", "timeout", "-s", "INT", "3")
    file = ["--write", str(tmp_path / "out.pcapng")] if arguments[:1] == ["capture"] else []
    done = netobs(lab, host.ns, "--conf", conf, *arguments, *file, prefix=without)
    said = [line for line in (done.stdout + done.stderr).splitlines() if "; mount /" in line]
    assert "Traceback" not in done.stderr
    if arguments[:1] == ["capture"]:  # it needs no /proc
        assert len(said) == ("/sys" in missing)
        return
    assert (done.returncode, len(said)) == (1, 1)
    assert said[0].startswith(("problem: /", "netobs: /"))
    assert len(done.stderr.splitlines()) == (0 if arguments else 1)


def test_standard_error_that_is_closed(lab: Lab, host: Link, tmp_path: Path) -> None:
    """What would be said is lost, and nothing else: no other file gets the number of standard error."""
    closed = ("sh", "-c", 'exec "$@" 2>&-', "sh")
    with UdpSink(host.ns) as collector:
        conf = write(tmp_path, configuration({"eviction_interval": "100ms"}, {"active_timeout": "0s"}))
        argv = [*closed, *NETOBS, "--conf", conf]
        process = lab.popen(host.ns, argv, cwd=REPOSITORY)
        wait_until(lambda: "netobs_ingress" in traffic_control(lab, host.ns) or bool(collector.drain()), "it exports")
        assert os.readlink(f"/proc/{process.pid}/fd/2") == "/dev/null"
        process.send_signal(signal.SIGTERM)
        assert process.wait(EXIT_WITHIN_S) == 0
    (tmp_path / "netobs.toml").write_text("[captur]\n", encoding="utf-8")
    done = netobs(lab, host.ns, "--conf", conf, prefix=closed)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "")


# What is in the file, and what must be said behind its name.
MISTAKES = [
    ("[captur]\n", "[captur]: unknown table; did you mean [capture]?"),
    ("[capture]\nsamplng = 1\n", '[capture] samplng: unknown key; did you mean "sampling"?'),
    ("[capture]\ninterfaces = 'eth0'\n", "[capture] interfaces: "),
    ("[capture]\ninterfaces = []\n", "[capture] interfaces: "),
    ("[capture]\ninterfaces = ['/(/']\n", '[capture] interfaces: entry 1, "/(/": bad regular expression'),
    ("[capture]\nexclude = [1]\n", "[capture] exclude: "),
    ("[capture]\ndirection = 'in'\n", "[capture] direction: expected one of "),
    ("[capture]\nsampling = 0\n", "[capture] sampling: expected an integer from 1 to 65535, got 0"),
    ("[capture]\nsampling = '10'\n", "[capture] sampling: expected an integer from 1 to 65535, got "),
    ("[capture]\nflow_table = 'hash'\n", "[capture] flow_table: "),
    ("[capture]\nmax_flows = 1\n", "[capture] max_flows: expected an integer from 64 to 16777216, got 1"),
    ("[capture]\neviction_interval = 5\n", "[capture] eviction_interval: "),
    ("[capture]\neviction_interval = '1ms'\n", "[capture] eviction_interval: "),
    ("[capture]\nprecise_time = 'yes'\n", "[capture] precise_time: "),
    ("[capture]\nattach = 'xdp'\n", "[capture] attach: expected one of "),
    ("[metering]\nactive_timeout = '1 minute'\n", "[metering] active_timeout: "),
    ("[metering]\nidle_timeout = '0s'\n", "[metering] idle_timeout: "),
    ("[metering]\nmax_flows = 1.5\n", "[metering] max_flows: "),
    ("[packet_capture]\nenabled = 1\n", "[packet_capture] enabled: "),
    ("[packet_capture]\nlisten = 'localhost'\n", "[packet_capture] listen: "),
    ("[log]\nlevel = 'loud'\n", "[log] level: expected one of "),
    ("[collector]\nhost = 'a'\n", "; write [[collector]] for each collector"),
    ("sampling = 1\n", "sampling: a key cannot stand outside the tables; write it below [capture]"),
    ("[capture\n", "line 3, column 9: TOML syntax error: "),
    ("COLLECTOR port = 0\n", "[collector 2] port: expected an integer from 1 to 65535, got 0"),
    ("COLLECTOR protocol = 'sflow'\n", "[collector 2] protocol: expected "),
    ("COLLECTOR protocol = 'netflow9'\ntransport = 'tcp'\n", "netflow9 goes over UDP only"),
    ("COLLECTOR transport = 'dtls'\n", "[collector 2] transport: expected "),
    ("COLLECTOR transport = 'tls'\ncert = 'a'\n", "[collector 2] key: missing; cert needs the key"),
    ("COLLECTOR ca = 'a'\n", '[collector 2] ca: needs transport = "tls"'),
    ("COLLECTOR template = ''\n", "[collector 2] template: "),
    ("COLLECTOR observation_domain = -1\n", "[collector 2] observation_domain: "),
    ("COLLECTOR max_message_size = 9000\n", "[collector 2] max_message_size: expected an integer from 512 to 8972"),
    ("COLLECTOR template_refresh = '0s'\n", "[collector 2] template_refresh: "),
    ("COLLECTOR source = 'eth0'\n", "[collector 2] source: "),
    ("COLLECTOR queue_max = '16MB'\n", "[collector 2] queue_max: "),
    ("COLLECTOR reconnect_max = '1d'\n", "[collector 2] reconnect_max: "),
    ("[[collector]]\nport = 4739\n", "[collector 2] host: missing; expected "),
    ("[[collector]]\nhost = '10.0.0.300'\n", "[collector 2] host: expected "),
    (
        "[[collector]]\nhost = '127.0.0.1'\n",
        "[collector 2] host: collector 1 has this host, port and transport already",
    ),
]


@pytest.mark.parametrize(("text", "said"), MISTAKES)
def test_a_mistake_in_the_file_is_named(lab: Lab, tmp_path: Path, text: str, said: str) -> None:
    collector = "[[collector]]\nhost = '127.0.0.1'\n"
    text = text.replace("COLLECTOR", "[[collector]]\nhost = 'flows.example'\n")
    is_key = not text.startswith("[")
    conf = write(tmp_path, text + collector if is_key else collector + text)
    done = netobs(lab, lab.namespace(), "--conf", conf)
    assert done.returncode == 1
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"netobs: {conf}: ")
    assert said in line


def test_all_mistakes_come_at_once(lab: Lab, tmp_path: Path) -> None:
    conf = write(tmp_path, "[capture]\nsampling = 0\nmax_flow = 1\n[[collector]]\nport = 'x'\n[log]\nlevel = 1\n")
    done = netobs(lab, lab.namespace(), "--conf", conf)
    assert done.returncode == 1
    assert [line.rpartition(": ")[0].count(conf) for line in done.stderr.splitlines()] == [1] * 5


def test_no_file(lab: Lab, tmp_path: Path) -> None:
    done = netobs(lab, lab.namespace(), "--conf", str(tmp_path / "none.toml"))
    assert done.returncode == 1
    assert done.stderr.startswith(f"netobs: {tmp_path}/none.toml: there is no such file")


@pytest.mark.parametrize("attach", ["auto", "tcx"])
def test_what_attaching_to_many_interfaces_costs(lab: Lab, host: Link, tmp_path: Path, attach: str) -> None:
    make_taps(host.ns, (f"tap{number}" for number in range(99)))
    conf = write(tmp_path, configuration({"interfaces": ["veth0", "tap*"], "attach": attach}))
    said = netobs(lab, host.ns, "--conf", conf, "--dry-run").stdout
    assert said.count(": ingress and egress, by tcx\n") == (MANY if attach == "auto" else 100)
    assert said.count(": ingress and egress, by tc\n") == (100 - MANY if attach == "auto" else 0)
    split = f"{MANY} interfaces by tcx, {100 - MANY} by tc, about 2 s" if attach == "auto" else "by tc, about 5 s"
    assert f"{split}; what is attached is measured" in said
    assert ("warning: attaching by tcx to 100 interfaces takes about 5 s" in said) == (attach == "tcx")
    assert ('where hundreds come and go, capture.attach = "tc" is faster' in said) == (attach == "auto")
    assert f"file descriptors: {2 * MANY if attach == 'auto' else 200} for the interfaces" in said
