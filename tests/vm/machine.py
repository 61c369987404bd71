"""A machine in QEMU with another kernel and this host's root: read from the host, writes stay in its memory."""

from __future__ import annotations

import contextlib
import gzip
import lzma
import shlex
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from tests.vm.kernels import Kernel

TOOLS = ("qemu-system-x86_64", "busybox", "cpio", "apt-get", "dpkg-deb", "depmod", "modprobe")
ROOT = Path(__file__).parents[2]
INIT = Path(__file__).with_name("init.sh")
# To get at the host's root. The kernel loads others by itself when they are asked for.
BOOT_MODULES = ("virtio_pci", "9pnet_virtio", "9p", "overlay")
CPUS = 2
NODE_MEMORY = "1G"  # of each CPU, which is a NUMA node; also for all that is written in the machine
# A fifth level of page tables costs an emulator much. Its AVX computes wrongly: QEMU 7.2 breaks numpy's argsort.
CPU = "max,la57=off,avx=off,avx2=off,fma=off,f16c=off"
KILL_AFTER_S = 10
COMMAND_LINE = "console=ttyS0 quiet panic=-1 mitigations=off"
PREPARE = """\
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TERM=dumb
ip link set lo up
cd {root} || exit
"""


@dataclass(frozen=True)
class Outcome:
    """``status``: what the job ended with, "" if it never did. ``console``: the file with all the machine said."""

    status: str
    console: Path
    boot_s: float  # from the start of QEMU to that of the job
    job_s: float


def run(kernel: Kernel, job: str, folder: Path, timeout_s: int, boot: str = "") -> Outcome:
    """Boots ``kernel`` and runs ``job``, a shell script, as root in this tree; ends with it, or by ``timeout_s``.

    ``boot``: more words for the kernel's command line.

    ``folder`` (emptied first) gets the console and results/, which is /run/results in the machine: the one place where
    what it writes stays. Needs no KVM.
    """
    shutil.rmtree(folder, ignore_errors=True)
    results, console = folder / "results", folder / "console"
    results.mkdir(parents=True)
    prepare = PREPARE.format(root=shlex.quote(str(ROOT)))
    (results / "job").write_text(prepare + job, encoding="utf-8")
    argv = _command_line(kernel, boot, _initramfs(kernel, folder), results)
    begin = time.time()
    # Ends in time even if nobody is left to wait for it.
    bounded = ["timeout", f"--kill-after={KILL_AFTER_S}", str(timeout_s), *argv]
    with console.open("wb") as output, _started(bounded, output) as process:
        process.wait()
    end, status, booted = time.time(), results / "status", results / "booted"
    ready = booted.stat().st_mtime if booted.exists() else end
    said = status.read_text(encoding="ascii").strip() if status.exists() else ""
    return Outcome(said, console, ready - begin, end - ready)


@contextlib.contextmanager
def _started(argv: list[str], output: BinaryIO) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)
    try:
        yield process
    finally:
        process.terminate()  # timeout passes it on
        process.wait()


def _command_line(kernel: Kernel, boot: str, initramfs: Path, results: Path) -> list[str]:
    argv = ["qemu-system-x86_64", "-accel", "tcg,thread=multi", "-cpu", CPU, "-smp", str(CPUS), "-m", f"{CPUS}G"]
    for node in range(CPUS):
        argv += ["-object", f"memory-backend-ram,size={NODE_MEMORY},id=memory{node}"]
        argv += ["-numa", f"node,cpus={node},memdev=memory{node}"]
    argv += ["-nographic", "-no-reboot", "-nic", "none"]
    argv += ["-kernel", str(kernel.image), "-initrd", str(initramfs), "-append", f"{COMMAND_LINE} {boot}"]
    return [*argv, *_share("host", Path("/"), "readonly=on", "multidevs=remap"), *_share("results", results)]


def _share(tag: str, path: Path, *options: str) -> list[str]:
    escaped = str(path).replace(",", ",,")
    return ["-virtfs", ",".join(["local", f"path={escaped}", f"mount_tag={tag}", "security_model=none", *options])]


def _initramfs(kernel: Kernel, folder: Path) -> Path:
    """Busybox, the init script, and the modules to begin with, packed."""
    tree, packed = folder / "initramfs", folder / "initramfs.gz"
    busybox = shutil.which("busybox")
    if not busybox:
        raise FileNotFoundError("busybox: not found; sh tools/install-tools.sh vm installs it")
    for name in ("bin", "modules"):
        (tree / name).mkdir(parents=True)
    shutil.copy(busybox, tree / "bin" / "busybox")
    (tree / "bin" / "sh").symlink_to("busybox")
    shutil.copy(INIT, tree / "init")
    (tree / "init").chmod(0o755)
    _add_modules(kernel, tree / "modules")
    names = "\n".join(str(file.relative_to(tree)) for file in sorted(tree.rglob("*")))
    made = subprocess.run(
        ["cpio", "--quiet", "-o", "-H", "newc"], cwd=tree, input=names.encode(), stdout=subprocess.PIPE, check=True
    )
    packed.write_bytes(gzip.compress(made.stdout, 1))
    return packed


def _add_modules(kernel: Kernel, folder: Path) -> None:
    """The modules, their ``order``, and in ``tree`` where the host has the others."""
    order = []
    for file in kernel.with_dependencies(*BOOT_MODULES):
        content = file.read_bytes()
        order.append(file.name.split(".ko", 1)[0])
        (folder / order[-1]).write_bytes(lzma.decompress(content) if file.suffix == ".xz" else content)
    (folder / "order").write_text("".join(f"{name}\n" for name in order), encoding="ascii")
    (folder / "tree").write_text(f"{kernel.modules.resolve()}\n", encoding="utf-8")
