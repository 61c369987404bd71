"""Clients that get the same bytes: the packets of a batch are put into their format once for all of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Callable, Protocol

from netobs.kernel.interfaces import Interface
from netobs.pcap.batch import Numbers, PacketBatch
from netobs.pcap.distribution import Distribution, Subscription
from netobs.pcap.formats.pcap import PcapFormat
from netobs.pcap.formats.pcapng import PcapngFormat
from netobs.pcap.formats.records import PacketFormat, Records, link_of
from netobs.pcap.selection import Selection
from netobs.pcap.source import Moment
from netobs.pcap.tap.layout import LINK_ETHERNET, LINK_IP

Losses = Callable[[], Mapping[int, int]]
"""Packets that the kernel lost of what a client had to get, by interface index."""

SPARE_INTERFACES = 64
"""A stream that has told of so many more interfaces than there are now is not begun in its middle."""


class Member(Protocol):
    """A client, as its channel sees it."""

    def take_head(self, head: bytes, now_ns: int) -> None:
        """``head`` goes into the stream, whatever waits."""

    def take(self, records: Records, other_link: int, now_ns: int) -> None:
        """Put ``records`` into the stream. ``other_link``: packets that the format has no place for."""


class Channel:
    """A sink for packets of one selection, in one format."""

    def __init__(
        self,
        stream: PacketFormat,
        snaplen: int,
        interfaces: Mapping[int, Interface],
        captured: Callable[[], Sequence[Interface]],
    ) -> None:
        """``interfaces``: those whose names are known; ``captured``: tells which may have packets for it."""
        self.format = stream
        self.snaplen = snaplen
        self.members: list[Member] = []
        self._known = interfaces
        self._captured = captured

    @property
    def is_captured(self) -> bool:
        """Whether any interface that may have packets for it is captured now."""
        return bool(self._captured())

    def may_be_joined(self, interfaces: int) -> bool:
        """Whether a client that comes now can do with this stream, as there are so many ``interfaces``."""
        return bool(self.members) and len(self.format.interfaces) <= interfaces + SPARE_INTERFACES

    def take(self, batch: PacketBatch, rows: Numbers, moment: Moment) -> None:
        """The packets ``rows`` of ``batch``, to all members."""
        self._known = moment.interfaces
        records = self.format.records(batch, rows, moment.offset_ns, moment.interfaces)
        for member in tuple(self.members):
            member.take(records, len(rows) - len(records), moment.now_ns)

    def introduce(self, lost: Iterable[int], now_ns: int) -> None:
        """Tell all members of the interfaces that statistics need. ``lost``: indices of those that lost packets."""
        head = self.format.introduce(untold(self.format, self._known, lost, self._captured))
        for member in tuple(self.members):
            member.take_head(head, now_ns)


class Channels:
    """The channels that there are: clients that want the same are members of one."""

    def __init__(self, distribution: Distribution) -> None:
        self._distribution = distribution
        self._current: dict[tuple[Selection, str, int, int], Channel] = {}
        self._subscriptions: dict[Channel, Subscription] = {}

    def __len__(self) -> int:
        return len(self._subscriptions)

    def join(self, selection: Selection, name: str, link: int, snaplen: int, moment: Moment) -> tuple[Channel, Losses]:
        """The channel for packets of ``selection`` in the format ``name``, and what its filter loses from now on.

        The caller becomes a member at once. Raises NetobsError.
        """
        key = selection, name, link, snaplen
        channel = self._current.get(key)
        if channel is None or not channel.may_be_joined(len(self._distribution.interfaces)):
            stream = stream_of(name, link, snaplen, selection.filter.text)
            channel = Channel(stream, snaplen, moment.interfaces, lambda: self.captured(selection.ifindex))
            self._subscriptions[channel] = self._distribution.subscribe(selection, channel, moment.now_ns)
            self._current[key] = channel
        return channel, _losses_from_now(self._subscriptions[channel])

    def captured(self, ifindex: int) -> Sequence[Interface]:
        """The interfaces that are captured now; with ``ifindex`` other than 0 this one alone."""
        return [each for each in self._distribution.interfaces if ifindex in (0, each.index)]

    def leave(self, channel: Channel, now_ns: int) -> None:
        """A member has left: without members there is no channel."""
        if not channel.members:
            self._distribution.unsubscribe(self._subscriptions.pop(channel), channel, now_ns)
            self._current = {key: each for key, each in self._current.items() if each is not channel}


def _losses_from_now(subscription: Subscription) -> Losses:
    before = dict(subscription.losses())

    def losses() -> dict[int, int]:
        since = {index: count - before.get(index, 0) for index, count in subscription.losses().items()}
        return {index: count for index, count in since.items() if count > 0}

    return losses


def stream_of(name: str, link: int, snaplen: int, filter_text: str) -> PacketFormat:
    """A new stream of the format ``name``: "pcap" or "pcapng"."""
    return PcapFormat(link, snaplen) if name == "pcap" else PcapngFormat(snaplen, filter_text)


def untold(
    stream: PacketFormat,
    known: Mapping[int, Interface],
    lost: Iterable[int],
    captured: Callable[[], Sequence[Interface]],
) -> list[Interface]:
    """What ``stream`` has to be told of before its statistics: interfaces that only ``lost`` packets, by index, as far
    as they are ``known``; if nothing at all was selected, those that are ``captured``. Without any interface libpcap
    takes no pcapng, and with interfaces of several link types neither.
    """
    told = {interface.index for interface in stream.interfaces}
    missing = [known[index] for index in lost if index in known.keys() - told]
    if told or missing:
        return missing
    interfaces = captured()
    link = common_link(interfaces)
    return [interface for interface in interfaces if link_of(interface) == link]


def common_link(interfaces: Sequence[Interface]) -> int:
    """The link type of a classic pcap stream: Ethernet, unless nothing that it may have packets of has it."""
    has_ethernet = not interfaces or any(interface.has_ethernet for interface in interfaces)
    return LINK_ETHERNET if has_ethernet else LINK_IP
