"""A Debian system booted in a container: systemd is its first process, its network a namespace of the laboratory."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import shutil
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path

from lab.namespaces import PREFIX, STOP_TIMEOUT_S, Lab, LabError, command
from lab.programs import Program, wait_until

BOOT = Path(__file__).with_name("boot.sh")
BOOT_S = 60.0
RUN_S = 180.0
UP = ("running", "degraded")  # degraded: a container has no kernel modules to load
NAMESPACES = ("--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--wd")
ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LC_ALL": "C.UTF-8",
    "SYSTEMD_PAGER": "",
    "DEBIAN_FRONTEND": "noninteractive",
}


@dataclass(frozen=True)
class Process:
    """A process of the container, by the id that it has outside."""

    pid: int

    @property
    def uid(self) -> int:
        """Whose it is."""
        return int(self.status()["Uid"].split()[1])

    def status(self) -> dict[str, str]:
        """The lines of /proc/PID/status."""
        text = Path(f"/proc/{self.pid}/status").read_text(encoding="utf-8")
        return dict(re.findall(r"^(\w+):\s*(.*)$", text, re.MULTILINE))

    def send(self, number: int) -> None:
        os.kill(self.pid, number)


class Container(Program):
    """``root`` booted in ``ns``, up when it is entered. What it writes is gone when it ends, ``root`` unchanged."""

    _numbers = itertools.count(1)

    def __init__(self, lab: Lab, ns: str, directory: Path, root: Path) -> None:
        super().__init__(lab, ns, directory, f"container{next(self._numbers)}")
        self.root = root
        parent = _own_cgroup()
        if parent is None:
            raise LabError(problem())
        self._cgroup = parent / ns
        self._work = self.directory / "work"
        self._work.mkdir()

    def _start(self) -> None:
        argv = ["unshare", "--mount", "--", "sh", str(BOOT)]
        argv += [str(self.root), str(self._work), str(self._cgroup), self.ns]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self._wait_up()

    def _wait_up(self, before: int = 0) -> None:
        def up() -> bool:
            if self.process.poll() is not None:
                raise LabError(f"{self.label} ended with {self.process.returncode}: {self.log.strip()}")
            with contextlib.suppress(LabError):
                return self.leader != before and self.systemctl("is-system-running", check=False) in UP
            return False

        wait_until(up, f"{self.label} boots", BOOT_S)

    def _end(self) -> None:
        process = self._process
        if process is None:
            return
        # With the first process of a PID namespace all others die; nspawn and the script follow.
        with contextlib.suppress(LabError, ProcessLookupError):
            os.kill(self.leader, signal.SIGKILL)
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            _kill_all(self._cgroup)
            process.wait()
        _remove_cgroup(self._cgroup)

    @property
    def leader(self) -> int:
        """The first process of the container, by its id outside. ``LabError`` while there is none."""
        for pid in (pid for nspawn in _children(self.process.pid) for pid in _children(nspawn)):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                if Path(f"/proc/{pid}/comm").read_text(encoding="utf-8").strip() == "systemd":
                    return pid
        raise LabError(f"{self.label} has no first process")

    def run(self, *argv: str, check: bool = True, timeout: float = RUN_S) -> subprocess.CompletedProcess[str]:
        """Run ``argv`` as root inside, see ``lab.namespaces.command``."""
        environment = [f"{name}={value}" for name, value in ENVIRONMENT.items()]
        enter = ["nsenter", f"--target={self.leader}", *NAMESPACES, "--", "env", "-i", *environment]
        return command([*enter, *argv], check=check, timeout=timeout)

    def systemctl(self, *arguments: str, check: bool = True) -> str:
        """What ``systemctl`` prints, without the space around it."""
        return self.run("systemctl", *arguments, check=check).stdout.strip()

    def show(self, unit: str, name: str) -> str:
        """The value of a property of ``unit``."""
        return self.systemctl("show", "--value", f"--property={name}", unit)

    def path(self, inside: str) -> Path:
        """Where the file ``inside`` is found from outside. It changes when the container reboots."""
        return Path(f"/proc/{self.leader}/root") / inside.lstrip("/")

    def copy(self, file: Path, folder: str = "/tmp") -> str:
        """Put a file into ``folder``; its path inside."""
        shutil.copy(file, self.path(folder) / file.name)
        return f"{folder}/{file.name}"

    def processes(self, unit: str) -> list[Process]:
        """The processes of ``unit``, in the order of their ids; none if it does not run."""
        inside = self.show(unit, "ControlGroup")
        file = self._cgroup / "payload" / inside.lstrip("/") / "cgroup.procs"
        try:
            numbers = file.read_text(encoding="ascii").split() if inside else []
        except FileNotFoundError:  # it has just ended
            numbers = []
        return [Process(int(number)) for number in sorted(numbers, key=int)]

    def journal(self, *matches: str) -> str:
        """The journal, or what of it matches, a line each; with all that was said until now."""
        self.run("journalctl", "--sync")
        return self.run("journalctl", "--no-pager", "--quiet", *matches).stdout

    def reboot(self) -> None:
        """Reboot it as an admin would, until it is up again."""
        before = self.leader
        self.run("systemctl", "reboot", check=False)
        self._wait_up(before)


def _children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()]
    except FileNotFoundError:
        return []


def problem() -> str:
    """Why no container can be booted here; "" if one can."""
    return "" if _own_cgroup() else "cgroup2 is not mounted"


def _own_cgroup() -> Path | None:
    """The cgroup2 folder of this process."""
    mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8")
    mounted = re.search(r"^\d+ \d+ \S+ (\S+) (\S+) .* - cgroup2 ", mounts, re.MULTILINE)
    own = re.search(r"^0::(\S+)$", Path("/proc/self/cgroup").read_text(encoding="utf-8"), re.MULTILINE)
    return Path(mounted[2]) / os.path.relpath(own[1], mounted[1]) if mounted and own else None


def _kill_all(folder: Path) -> None:
    (folder / "cgroup.kill").write_text("1", encoding="ascii")


def _remove_cgroup(folder: Path) -> None:
    """Remove a cgroup with those in it, once the kernel has let go of what ran there."""

    def gone() -> bool:
        for inner in sorted(folder.rglob("*/"), reverse=True):
            with contextlib.suppress(OSError):
                inner.rmdir()
        with contextlib.suppress(OSError):
            folder.rmdir()
        return not folder.exists()

    wait_until(gone, f"cgroup {folder} is empty")


def sweep() -> None:
    """End what killed test runs left running, and remove its cgroups."""
    parent = _own_cgroup()
    for folder in parent.glob(f"{PREFIX}*-*") if parent else ():
        owner = folder.name[len(PREFIX) :].partition("-")[0]
        if not Path("/proc", owner).exists():
            payload = folder / "payload"  # once that is gone, nspawn clears up and ends
            _kill_all(payload if payload.exists() else folder)
            _remove_cgroup(folder)
