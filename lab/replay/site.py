"""Where files are replayed: interfaces of both kinds, and the daemon that measures them."""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from lab.collectors import UdpSink
from lab.daemon import Account, Daemon, configuration, total
from lab.namespaces import Lab, LabError, Link
from lab.programs import wait_until
from lab.replay.flows import ETHERNET, IP, Flow, Key, contradictions, exported
from lab.replay.link_types import NotSendable, Sendable, is_dropped_at_ingress
from lab.wire import Sender, Tun
from netobs.collector.decode import Decoder

LARGEST_MTU = 65535
COLLECTOR = "127.0.0.1"


class Lane:
    """Interfaces for one file at a time.

    At ingress, what is sent arrives at the far end of a veth pair, or on a tun. At egress, it leaves by the near end of
    the pair, and only Ethernet frames can be sent.
    """

    def __init__(self, lab: Lab, near: str, far: str, number: int, egress: bool, stack: contextlib.ExitStack) -> None:
        name = f"veth{number}"
        sending, receiving = lab.veth(near, far, names=(name, name), mtu=LARGEST_MTU)
        self._frames = stack.enter_context(Sender(sending))
        self._packets = None if egress else stack.enter_context(Tun(lab, far, f"tun{number}"))
        self.media: dict[Link, str] = {sending if egress else receiving: ETHERNET}
        if self._packets:
            self.media[self._packets.link] = IP

    def send(self, one: Sendable) -> None:
        """Waits where the receiver is behind. :raises NotSendable: the kernel refuses it, for the reason given."""
        if self._packets and is_dropped_at_ingress(one):
            raise NotSendable("VLAN tag cut short")
        if not self._packets and one.ethertype >= 0:
            raise NotSendable("without Ethernet")
        try:
            if one.ethertype < 0:
                self._frames.send(one.octets)
            elif self._packets:
                self._packets.send(one.octets, ethertype=one.ethertype)
        except OSError as error:
            raise NotSendable(os.strerror(error.errno or 0)) from error


@dataclass
class Measured:
    """What the daemon made of what was sent since the last time. ``flows`` by interface index; ``ledger`` by reason.

    ``odd``, by interface index: elements of one record that contradict each other.
    """

    seen: int = 0
    ledger: Counter[str] = field(default_factory=Counter)
    flows: dict[int, dict[Key, Flow]] = field(default_factory=dict)
    odd: dict[int, list[str]] = field(default_factory=dict)
    balanced: bool = False


class Site:
    """``lanes``, and the daemon that measures one direction of them, as a context manager. ``directory`` is for it."""

    def __init__(self, directory: Path, lanes: int, egress: bool = False) -> None:
        self._directory, self._count, self._egress = directory, lanes, egress
        self._stack = contextlib.ExitStack()
        self._decoder = Decoder()
        self._before = Account()
        self._measured = Measured()
        self._media: dict[int, str] = {}

    def __enter__(self) -> Site:
        try:
            self._open()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def _open(self) -> None:
        lab = self._stack.enter_context(Lab())
        near, far = lab.namespace("near"), lab.namespace("far")
        self.lanes = [Lane(lab, near, far, number, self._egress, self._stack) for number in range(self._count)]
        self._media = {link.ifindex: medium for lane in self.lanes for link, medium in lane.media.items()}
        ns, direction = (near, "egress") if self._egress else (far, "ingress")
        self._sink = self._stack.enter_context(UdpSink(ns, host=COLLECTOR))
        capture = {"interfaces": ["veth*", "tun*"], "direction": direction, "eviction_interval": "100ms"}
        # Flows leave at each eviction, so that none of them waits for a timeout; their parts are added up here.
        config = configuration(capture, {"active_timeout": "0s"}, [{"template": "full", "queue_max": "256MiB"}])
        self._daemon = self._stack.enter_context(Daemon(lab, ns, self._directory, config))
        # First-packet fields are exact where all packets come to one CPU (docs/flows.md: coarse time).
        mine = os.sched_getaffinity(0)
        self._stack.callback(os.sched_setaffinity, 0, mine)
        os.sched_setaffinity(0, {min(mine)})

    def take(self) -> None:
        """Read what has been exported so far: the socket must not fill up."""
        for message in self._sink.drain():
            for record in self._decoder.decode(message).flows:
                self._add(record)

    def settle(self, sent: int) -> Measured:
        """What was made of ``sent`` frames, once the daemon has exported all. Fewer are seen if some got lost."""
        expected = self._before.seen.packets + sent
        account = self._daemon.account()

        def settled() -> bool:
            nonlocal account
            account = self._daemon.account()
            self.take()
            return account.seen.packets >= expected and _is_out(account)

        with contextlib.suppress(LabError):  # what has not come in that time is a difference
            wait_until(settled, "every frame is accounted for")
        self.take()
        measured, self._measured = self._measured, Measured()
        measured.seen = account.seen.packets - self._before.seen.packets
        measured.balanced = _is_out(account) and self._decoder.stats.lost_records == 0
        for reason, counts in account.ledger.items():
            measured.ledger[reason] = counts.packets - self._packets_before(reason)
        self._before = account
        return measured

    def _packets_before(self, reason: str) -> int:
        return self._before.ledger[reason].packets if reason in self._before.ledger else 0

    def _add(self, record: Mapping[str, Any]) -> None:
        index: int = record["egressInterface" if self._egress else "ingressInterface"]
        key, flow = exported(record, self._media[index])
        self._measured.odd.setdefault(index, []).extend(
            f"{key}: {text}" for text in contradictions(record, self._egress)
        )
        flows = self._measured.flows.setdefault(index, {})
        if key in flows:
            flows[key].add(flow)
        else:
            flows[key] = flow


def _is_out(account: Account) -> bool:
    """Whether each packet that was seen is in the ledger or in a flow that was sent, octet by octet."""
    sent = account.sent.get(COLLECTOR)
    return sent is not None and (total(account.ledger) + sent).measured == account.seen.measured
