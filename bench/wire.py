"""A veth pair between two namespaces: traffic goes in at one end, programs are on the ingress hook of the other."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Callable

from lab.namespaces import Lab, Link, in_namespace
from lab.traffic import Sent, Traffic
from netobs.kernel.attach import attach, has_tcx
from netobs.kernel.interfaces import Interface

ARPHRD_ETHER = 1
POLL_S = 0.02


class Wire:
    """The laboratory of the measurements; a context manager.

    The generator has the last CPU for itself, with the softirqs that it causes, programs among them; this process
    keeps to the others.
    """

    def __init__(self) -> None:
        self.lab = Lab()
        self._cpus = os.sched_getaffinity(0)
        self.sender: Link
        self.receiver: Link

    def __enter__(self) -> Wire:
        os.sched_setaffinity(0, self.other_cpus)
        try:
            self.sender, self.receiver = self.lab.pair()
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def _close(self) -> None:
        self.lab.close()
        os.sched_setaffinity(0, self._cpus)

    @property
    def traffic_cpu(self) -> int:
        """Where packets are sent and received."""
        return max(self._cpus)

    @property
    def other_cpus(self) -> set[int]:
        """All others, if there are any."""
        return self._cpus - {self.traffic_cpu} or self._cpus

    @contextlib.contextmanager
    def attached(self, program_fds: list[int]) -> Iterator[None]:
        """Programs on the receiving end's ingress hook; they run in the order given."""
        interface = Interface(self.receiver.ifindex, self.receiver.name, ARPHRD_ETHER)
        attachments = []
        try:
            with in_namespace(self.receiver.ns):
                for fd in reversed(program_fds):  # each precedes the existing ones
                    attachment = attach(interface, "ingress", fd, "tcx" if has_tcx(fd) else "tc")
                    attachments.append(attachment)
            yield
        finally:
            with in_namespace(self.receiver.ns):
                for attachment in attachments:
                    attachment.detach()

    def send(
        self,
        flows: int,
        packets: int,
        meanwhile: Callable[[], None] | None = None,
        first_flow: int = 0,
        rate: float = 0,
    ) -> Sent:
        """``packets`` of UDP, 64 bytes, round robin over ``flows``, ``rate`` per second or at full speed; ``meanwhile``
        is called often."""
        traffic = Traffic(flows=flows, packets=packets, flow_base=first_flow)
        running = traffic.start(self.lab, self.sender, cpus=[self.traffic_cpu], rate=rate)
        while meanwhile and running.process.poll() is None:
            time.sleep(POLL_S)
            meanwhile()
        return running.wait()
