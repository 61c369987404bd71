"""Kernels that lack something: netobs works without it, or one sentence says what is missing."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import Any

import pytest

from lab.daemon import NETOBS, configuration
from netobs.kernel.requirements import MEMLOCK_UNTIL, kernel_version
from tests.vm import machine
from tests.vm.kernels import CACHE, Kernel

pytestmark = pytest.mark.vm(tools=machine.TOOLS)

TIMEOUT_S = 600
BOOT = "lockdown=confidentiality nohz_full=1 mem=640M"
WOULD_START, DOES_NOT = "netobs would start", "netobs would not start"

# Each step leaves its output, with the exit status in the last line, in a file of its name.
JOB = """\
{files}
results=/run/results
step() {{ name=$1; shift; {{ "$@"; echo "exit status $?"; }} >$results/$name 2>&1; }}
start() {{ {netobs} --conf /tmp/$1.toml; }}
check() {{ {netobs} --conf /tmp/$1.toml --dry-run; }}
run() {{ # until it is ready, then it is ended
	{netobs} --conf /tmp/usual.toml &
	while kill -0 $! && ! grep -q 'netobs ready' $results/run; do sleep 0.2; done
	kill $!
	wait $!
}}
unlocked() {{ # who may lock little memory, and may not raise that
	prlimit --memlock=65536:65536 setpriv --bounding-set=-sys_resource {netobs} --conf /tmp/usual.toml --dry-run
}}
# As if the kernel's package had no such module. The machine writes to its own memory.
remove() {{
	rm "$modules/kernel/net/sched/$1.ko"* && sed -i "/\\/$1\\.ko/d" "$modules/modules.dep"
}}
modules=/lib/modules/$(uname -r)
mount -t securityfs securityfs /sys/kernel/security
ip link add veth0 type veth peer name veth1 && ip link set veth0 up && ip link set veth1 up

step lockdown cat /sys/kernel/security/lockdown
step usual check usual
step locked_memory unlocked
step too_large check large
step run run
modprobe -r cls_bpf && remove cls_bpf
step no_filter start usual
step no_filter_dry check usual
step qdiscs tc qdisc show dev veth0
modprobe -r sch_ingress && remove sch_ingress
step no_qdisc start usual
step no_qdisc_dry check usual
"""


def files() -> str:
    """Shell commands that write the configurations."""
    texts: dict[str, dict[str, Any]] = {"usual": {"attach": "tc"}, "large": {"max_flows": 4_000_000}}
    return "\n".join(f"cat >/tmp/{name}.toml <<'END'\n{configuration(keys)}END" for name, keys in texts.items())


def lines_about(said: dict[str, str], step: str, words: str) -> list[str]:
    """The lines of a step's output that contain ``words``."""
    return [line for line in said[step].splitlines() if words in line]


@pytest.mark.parametrize("name", ["5.10", "6.1"])
def test_what_is_lacking_is_said(fetch: Callable[[str], Kernel], report: list[str], name: str) -> None:
    poor = fetch(name)
    job = JOB.format(files=files(), netobs=" ".join(NETOBS))
    outcome = machine.run(poor, job, CACHE / "runs" / f"{poor.release}-poorer", TIMEOUT_S, BOOT)
    results = outcome.console.parent / "results"
    assert outcome.status == "0", f"{outcome.console}: the steps did not end"
    said = {file.name: file.read_text(encoding="utf-8", errors="replace") for file in results.iterdir()}
    assert [step for step, text in said.items() if "Traceback" in text] == []

    assert "[confidentiality]" in said["lockdown"]  # and yet:
    assert WOULD_START in said["usual"]
    assert "exit status 0" in said["usual"]
    sentences = check_sentences(poor, said)
    check_grace_period(poor, said)
    report.append(f"{poor.release} with {BOOT}: boot {outcome.boot_s:.0f} s, steps {outcome.job_s:.0f} s; it was said:")
    report.extend(f"  {sentence}" for sentence in sentences)


def check_sentences(poor: Kernel, said: dict[str, str]) -> list[str]:
    found = []
    for step, words in (
        ("no_filter", f"veth0 ingress: filter: kernel {poor.release} has no module cls_bpf (CONFIG_NET_CLS_BPF)"),
        ("no_filter_dry", f"kernel {poor.release} has no module cls_bpf (CONFIG_NET_CLS_BPF)"),
        ("no_qdisc", f"veth0 ingress: clsact qdisc: kernel {poor.release} has no module sch_ingress (CONFIG_NET_SCH"),
        ("no_qdisc_dry", f"kernel {poor.release} has no module sch_ingress (CONFIG_NET_SCH_INGRESS)"),
        ("too_large", "capture.max_flows = 4000000 needs "),
    ):
        (sentence,) = lines_about(said, step, words)
        found.append(sentence)
        is_dry_run = DOES_NOT in said[step]
        assert is_dry_run == (step.endswith("dry") or step == "too_large")
        assert said[step].splitlines()[-1] == f"exit status {1 if is_dry_run else os.EX_TEMPFAIL}"
    assert "clsact" not in said["qdiscs"]  # the qdisc that it had made for its filter
    if kernel_version(poor.release) < MEMLOCK_UNTIL:
        found += lines_about(said, "locked_memory", f"maps count as locked memory in kernel {poor.release}")
        assert len(found) == 6
        assert "this process may lock 65536 bytes: set LimitMEMLOCK=infinity" in found[-1]
    else:
        assert WOULD_START in said["locked_memory"]
    return found


def check_grace_period(poor: Kernel, said: dict[str, str]) -> None:
    """A kernel that can run CPUs without a tick has no membarrier then."""
    config = (poor.root / "boot" / f"config-{poor.release}").read_text(encoding="utf-8")
    another_way = "membarrier cannot be used (this kernel runs with nohz_full)" in said["run"]
    assert another_way == (re.search("^CONFIG_NO_HZ_FULL=y$", config, re.MULTILINE) is not None)
    assert "exit status 0" in said["run"]
