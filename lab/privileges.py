"""Programs as a package starts them: an unprivileged user who has a few capabilities, and nothing else."""

from __future__ import annotations

import os
import shlex
import stat
import sys
from collections.abc import Sequence
from pathlib import Path

from lab.namespaces import LabError, command
from lab.traffic import REPOSITORY
from netobs.base.capabilities import BPF
from netobs.kernel.requirements import kernel_version

USER = 65534  # nobody, and nogroup or nobody
CAPABILITIES = ("bpf", "net_admin", "perfmon")
"""What the daemon needs, in setpriv's words."""
_LIMITED = Path("/proc/sys/kernel/unprivileged_bpf_disabled")
IN_EFFECT = BPF if kernel_version(os.uname().release) < (6, 0) and _LIMITED.read_bytes() != b"0\n" else 0
"""The capabilities that stay in effect after the start, bit by bit: older kernels want CAP_BPF for every call."""


def unprivileged(argv: Sequence[str], folders: Sequence[Path], capabilities: Sequence[str] = CAPABILITIES) -> list[str]:
    """``argv`` as ``USER`` with ``capabilities``, for ``Lab.run`` and ``Lab.popen``, whose mount namespace it changes.

    The interpreter, this repository and ``folders`` can be reached there, even where they are below a folder that is
    root's alone, as root's home and pytest's folders are.
    """
    grant = ",".join(["-all", *(f"+{name}" for name in capabilities)])
    setpriv = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", "--no-new-privs"]
    setpriv += [f"--inh-caps={grant}", f"--ambient-caps={grant}", f"--bounding-set={grant}"]
    # Not the repository itself: a fresh clone may be in a folder that is its owner's alone.
    software = [Path(sys.prefix), Path(sys.base_prefix), REPOSITORY / "netobs", REPOSITORY / "templates"]
    for folder in software:
        if not folder.stat().st_mode & stat.S_IXOTH:
            raise LabError(f"{folder}: only its owner may read it, so that no other user can run netobs from there")
    steps = _reachable([*software, *folders])
    return ["sh", "-euc", "\n".join([*steps, 'exec "$@"']), "sh", *setpriv, *argv]


def give(folder: Path) -> None:
    """``folder`` and all that is in it belongs to ``USER``, as the folders of a service do."""
    command(["chown", "-R", f"{USER}:{USER}", str(folder)])


def _reachable(folders: Sequence[Path]) -> list[str]:
    """Shell commands after which others than root can reach ``folders``: what bars the way gets an empty folder."""
    barred: dict[Path, list[Path]] = {}
    for folder in dict.fromkeys(folders):
        bar = next((path for path in reversed(folder.parents) if not path.stat().st_mode & stat.S_IXOTH), None)
        if bar:
            barred.setdefault(bar, []).append(folder)
    steps = []
    for bar, inside in barred.items():
        # Through the working folder they are still there when the empty one lies on top.
        steps += [f"cd {shlex.quote(str(bar))}", f"mount -t tmpfs -o mode=755 netobs-test {shlex.quote(str(bar))}"]
        for folder in inside:
            steps += [f"mkdir -p {shlex.quote(str(folder))}"]
            steps += [f"mount -c --bind {shlex.quote(os.path.relpath(folder, bar))} {shlex.quote(str(folder))}"]
    return [*steps, f"cd {shlex.quote(str(REPOSITORY))}"] if steps else []
