"""Network namespaces joined by veth pairs, silent unless a test sends something, and cleaned up whatever happens."""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

PREFIX = "nobs"
CLONE_NEWNET = 0x40000000
RUN_TIMEOUT_S = 60.0
_NETNS_FILES = Path("/etc/netns")
STOP_TIMEOUT_S = 10.0

# For the links made later. IPv6 off: no address, no neighbour discovery, no multicast reports; Lab.address turns it on.
_SILENT_IPV6 = {
    "accept_dad": 0,
    "accept_ra": 0,
    "addr_gen_mode": 1,
    "dad_transmits": 0,
    "disable_ipv6": 1,
    "router_solicitations": 0,
}

_libc = ctypes.CDLL(None, use_errno=True)


class LabError(Exception):
    """A command of the laboratory failed; the message has the command and what it wrote to stderr."""


@dataclass(frozen=True)
class Link:
    """One end of a veth pair."""

    ns: str
    name: str
    ifindex: int
    mac: str


def command(
    argv: Sequence[str], *, check: bool = True, timeout: float = RUN_TIMEOUT_S
) -> subprocess.CompletedProcess[str]:
    """Run ``argv`` with its output captured as text. ``LabError`` with its stderr if ``check`` and it fails."""
    done = subprocess.run(list(argv), capture_output=True, text=True, timeout=timeout, check=False)
    if check and done.returncode:
        raise LabError(f"{' '.join(argv)}: exit {done.returncode}: {(done.stderr or done.stdout).strip()}")
    return done


def stop(process: subprocess.Popen[Any], number: int = signal.SIGTERM, timeout: float = STOP_TIMEOUT_S) -> int:
    """End a process that the caller started, by signal ``number`` and, after ``timeout`` s, SIGKILL. Its exit code."""
    if process.poll() is None:
        process.send_signal(number)
        try:
            process.wait(timeout)
        except subprocess.TimeoutExpired:
            process.kill()
    return process.wait()


def namespaces() -> list[str]:
    """The names of all network namespaces that ``ip netns`` knows."""
    return [line.split()[0] for line in command(["ip", "netns", "list"]).stdout.splitlines()]


@contextlib.contextmanager
def in_namespace(ns: str) -> Iterator[None]:
    """Move the current thread into ``ns``, for tests that use netobs in their own process.

    Sockets and maps made inside stay usable outside. /proc/sys/net and /proc/net/dev follow the thread, /sys does not.
    """
    with open("/proc/thread-self/ns/net", "rb") as home, open(f"/run/netns/{ns}", "rb") as target:
        _setns(target.fileno(), ns)
        try:
            yield
        finally:
            _setns(home.fileno(), "the first namespace")


def _setns(fd: int, name: str) -> None:
    if _libc.setns(fd, CLONE_NEWNET):
        number = ctypes.get_errno()
        raise OSError(number, f"setns: {os.strerror(number)}", name)


class Lab:
    """Namespaces, links and processes of one test, as a context manager. Needs root and the ``ip`` command.

    Names have the process id in them, so laboratories of several processes do not meet and ``sweep`` knows
    whose owner is dead.
    """

    _count = 0

    def __init__(self) -> None:
        self._cleanup = contextlib.ExitStack()
        self._pairs = 0
        atexit.register(self.close)

    def __enter__(self) -> Lab:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Undo everything in reverse order: end the processes, delete the namespaces with their links."""
        atexit.unregister(self.close)
        self._cleanup.close()

    def namespace(self, label: str = "ns") -> str:
        """Make a namespace with loopback up; its name. ``label`` is a part of the name, for people who read it."""
        Lab._count += 1
        ns = f"{PREFIX}{os.getpid()}-{label}{Lab._count}"
        command(["ip", "netns", "add", ns])
        self._cleanup.callback(_delete, ns)
        for key, value in _SILENT_IPV6.items():
            self.sysctl(ns, f"net/ipv6/conf/default/{key}", value)
        command(["ip", "-n", ns, "link", "set", "lo", "up"])
        return ns

    def veth(
        self,
        ns_a: str,
        ns_b: str,
        *,
        names: tuple[str, str] = ("", ""),
        macs: tuple[str, str] = ("", ""),
        mtu: int = 1500,
    ) -> tuple[Link, Link]:
        """A veth pair between two namespaces (may be the same one), both ends up, with no address.

        Without ``names`` the ends are veth0, veth1, … in their namespace; without ``macs`` the addresses are
        locally administered ones that depend only on the number of the pair.
        """
        taken = len(self.links(ns_a)), len(self.links(ns_b))
        self._pairs += 1
        name_a = names[0] or f"veth{taken[0] - 1}"
        name_b = names[1] or f"veth{taken[1] - (ns_a != ns_b)}"
        mac_a, mac_b = (mac or f"02:6e:6f:00:{self._pairs:02x}:{end:02x}" for end, mac in enumerate(macs, start=1))
        argv = ["ip", "link", "add", name_a, "address", mac_a, "mtu", str(mtu), "netns", ns_a, "type", "veth"]
        command([*argv, "peer", "name", name_b, "address", mac_b, "mtu", str(mtu), "netns", ns_b])
        for ns, name in ((ns_a, name_a), (ns_b, name_b)):
            command(["ip", "-n", ns, "link", "set", name, "up"])
        return self.link(ns_a, name_a), self.link(ns_b, name_b)

    def pair(self, **options: Any) -> tuple[Link, Link]:
        """Two new namespaces and a veth pair between them; ``options`` are those of ``veth``."""
        return self.veth(self.namespace("a"), self.namespace("b"), **options)

    def links(self, ns: str) -> list[dict[str, Any]]:
        """The output of ``ip -json -statistics link`` for the links of ``ns``."""
        listed: list[dict[str, Any]] = json.loads(command(["ip", "-n", ns, "-j", "-s", "link"]).stdout)
        return listed

    def link(self, ns: str, name: str) -> Link:
        """The link ``name`` of ``ns``, for links that a test made by itself."""
        for entry in self.links(ns):
            if entry["ifname"] == name:
                return Link(ns, name, entry["ifindex"], entry.get("address", ""))
        raise LabError(f"namespace {ns} has no link {name}")

    def counters(self, link: Link) -> dict[str, int]:
        """The kernel's counters of ``link``: ``rx_packets``, ``rx_bytes``, ``rx_dropped``, ``tx_packets`` and so on."""
        for entry in self.links(link.ns):
            if entry["ifindex"] == link.ifindex:
                stats = entry["stats64"]
                return {f"{way}_{key}": value for way in ("rx", "tx") for key, value in stats[way].items()}
        raise LabError(f"namespace {link.ns} has no link {link.name} any more")

    def address(self, link: Link, address: str) -> None:
        """Give ``link`` an address (``192.0.2.1/24``, ``2001:db8::1/64``). An IPv6 one makes multicast reports."""
        if ":" in address:
            self.sysctl(link.ns, f"net/ipv6/conf/{link.name}/disable_ipv6", 0)
        command(
            ["ip", "-n", link.ns, "address", "add", address, "dev", link.name, *(["nodad"] if ":" in address else [])]
        )

    def offload(self, link: Link, on: bool, *features: str) -> None:
        """Switch offloads by ethtool: ``features`` are its names (default: gro, gso, tso, rx and tx checksums)."""
        names = features or ("gro", "gso", "tso", "rx", "tx")
        value = "on" if on else "off"
        self.run(link.ns, ["ethtool", "-K", link.name, *(word for name in names for word in (name, value))])

    def name_servers(self, ns: str, *addresses: str, timeout_s: int = 5, attempts: int = 2) -> None:
        """Whom programs that are started in ``ns`` from now on ask for names (resolv.conf(5)), and how patiently."""
        folder = _NETNS_FILES / ns  # ip mounts what is in it over /etc
        folder.mkdir(parents=True, exist_ok=True)
        lines = [
            *(f"nameserver {address}" for address in addresses),
            f"options timeout:{timeout_s} attempts:{attempts}",
        ]
        (folder / "resolv.conf").write_text("\n".join(lines) + "\n", encoding="ascii")

    def sysctl(self, ns: str, key: str, value: object) -> None:
        """Write a setting below /proc/sys/net of ``ns``, e.g. ``net/ipv4/ip_forward``."""
        with in_namespace(ns):
            Path("/proc/sys", key).write_text(f"{value}\n", encoding="ascii")

    def run(
        self, ns: str, argv: Sequence[str], *, check: bool = True, timeout: float = RUN_TIMEOUT_S
    ) -> subprocess.CompletedProcess[str]:
        """Run ``argv`` in ``ns`` to its end, see ``command``."""
        return command(["ip", "netns", "exec", ns, *argv], check=check, timeout=timeout)

    def popen(self, ns: str, argv: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
        """Start ``argv`` in ``ns``; it is ended with the laboratory at the latest. ``options`` are those of Popen."""
        # ip replaces itself by the program, so the process id is the program's.
        process: subprocess.Popen[Any] = subprocess.Popen(["ip", "netns", "exec", ns, *argv], **options)
        self._cleanup.callback(_end, process)
        return process

    @staticmethod
    def leftovers() -> list[str]:
        """Names of the namespaces that laboratories of this process made and did not delete."""
        return [ns for ns in namespaces() if ns.startswith(f"{PREFIX}{os.getpid()}-")]

    @staticmethod
    def sweep() -> list[str]:
        """Delete the namespaces of laboratories whose process is dead, and end what still runs in them; their names."""
        swept = []
        for ns in namespaces():
            match = re.match(rf"{PREFIX}(\d+)-", ns)
            if match and not Path("/proc", match[1]).exists():
                try:
                    _delete(ns)
                except LabError:
                    if ns in namespaces():
                        raise
                    continue  # another process swept it away meanwhile
                swept.append(ns)
        return swept


def _end(process: subprocess.Popen[Any]) -> None:
    stop(process)
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe:
            pipe.close()


def _delete(ns: str) -> None:
    # A namespace lives on, with its links, as long as a process is in it.
    for pid in command(["ip", "netns", "pids", ns], check=False).stdout.split():
        if int(pid) != os.getpid():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
    command(["ip", "netns", "delete", ns])
    if (_NETNS_FILES / ns).is_dir():
        shutil.rmtree(_NETNS_FILES / ns, ignore_errors=True)
        with contextlib.suppress(OSError):  # others have files there
            _NETNS_FILES.rmdir()
