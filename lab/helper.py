"""The root helper, run by a test: a process of its own, for namespaces whose names the test chooses."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from lab.namespaces import stop
from lab.programs import wait_until
from netobs.kernel.helper_client import Helper

AS_UNDER_ITS_UNIT = ("setpriv", "--bounding-set", "-all,+net_admin,+sys_admin")
"""Root without the other capabilities: not even a file of its own is open to it against the file's mode."""


class RunningHelper:
    """As a context manager: ``netobs-helper`` at ``path``. ``folder``: where namespaces have their names."""

    def __init__(self, directory: Path, netns: Iterable[str], folder: str = "", user: str = "root") -> None:
        self.path = str(directory / "helper.sock")
        self._log = directory / "helper.log"
        self._conf = directory / "helper.toml"
        self._read = 0
        self._folder = ["--folder", folder] if folder else []
        patterns = ", ".join(f'"{pattern}"' for pattern in netns)
        self._conf.write_text(f'netns = [{patterns}]\nuser = "{user}"\n', encoding="ascii")

    def __enter__(self) -> RunningHelper:
        argv = [
            *AS_UNDER_ITS_UNIT,
            sys.executable,
            "-m",
            "netobs.helper.main",
            "--conf",
            str(self._conf),
            "--socket",
            self.path,
        ]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen([*argv, *self._folder], stderr=log)
        try:
            client = Helper(self.path)
            wait_until(lambda: self._process.poll() is not None or client.is_there, "the helper listens")
            assert self._process.poll() is None, self.log
            with contextlib.closing(client):
                client.list()  # it is at work: all its descriptors are open
                self.descriptors_at_rest = self.descriptors() - 1
        except BaseException:
            stop(self._process)
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self.end()

    def end(self) -> None:
        """Ends the process."""
        stop(self._process)

    @property
    def pid(self) -> int:
        """The number of its process."""
        return self._process.pid

    @property
    def log(self) -> str:
        """What it has logged since ``forget_log``."""
        return self._log.read_text(encoding="utf-8")[self._read :]

    def forget_log(self) -> None:
        """``log`` begins here."""
        self._read += len(self.log)

    def descriptors(self) -> int:
        """How many it has open."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def memory_kib(self) -> int:
        """Its resident memory."""
        lines = Path(f"/proc/{self.pid}/status").read_text("ascii").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))
