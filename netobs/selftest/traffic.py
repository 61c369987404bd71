"""The traffic: by sockets and as frames, in both directions. All that is sent is added to ``Expected``."""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Iterator
from typing import Any, NamedTuple

from netobs.base.errors import NetobsError
from netobs.selftest import frames as f
from netobs.selftest.crafted import Crafted, crafted
from netobs.selftest.expected import EGRESS, INGRESS, Expected, Flow
from netobs.selftest.links import End
from netobs.selftest.site import FAR, NEAR, Site
from netobs.selftest.tcp import FLAGS, Conversation

COPIES = 10
"""Of each frame, datagram and echo in a round."""
TTL = 64  # of the kernel's own packets
_PAYLOAD_OCTETS = (1, 100, 1400)
_UDP_OCTETS, _ICMP_OCTETS = 8, 8
_SOL_UDP, _UDP_SEGMENT = 17, 103  # linux/udp.h
_SEGMENT_OCTETS, _SEGMENTS = 1000, 10
_SOL_PACKET, _PACKET_VNET_HDR = 263, 15  # linux/if_packet.h
_VNET_HEADER = struct.Struct("=BBHHHH")
"""struct virtio_net_hdr: flags, gso_type, hdr_len, gso_size, csum_start, csum_offset."""
_NEEDS_CSUM, _GSO_TCPV4, _TCP_CSUM_OFFSET, _TCP_START = 1, 1, 16, 14 + 20
_NEAR_PORT, _FAR_PORT = 40001, 40002


class _Family(NamedTuple):
    """IPv4 or IPv6."""

    version: int
    family: int
    header_octets: int
    ethertype: int
    icmp: int
    echo_request: int
    echo_reply: int

    def address(self, end: End) -> str:
        return (end.ipv4 if self.version == 4 else end.ipv6).partition("/")[0]

    def add(
        self, expected: Expected, kind: str, direction: int, where: tuple[int, int, int], sent: tuple[int, int],
        **elements: Any,
    ) -> None:  # fmt: skip
        """``where``: protocol and ports; ``sent``: packets and octets."""
        source, destination = (NEAR, FAR) if direction == EGRESS else (FAR, NEAR)
        flow = Flow(direction, self.address(source), self.address(destination), *where)
        elements.update(sourceMacAddress=source.mac, destinationMacAddress=destination.mac)
        elements.update(ethernetType=self.ethertype, ipVersion=self.version, minimumTTL=TTL, maximumTTL=TTL)
        expected.add(f"{kind} over IPv{self.version}", flow, *sent, elements)


_IPV4 = _Family(4, socket.AF_INET, 20, f.IPV4, f.ICMP, 8, 0)
_IPV6 = _Family(6, socket.AF_INET6, 40, f.IPV6, f.ICMPV6, 128, 129)


class Traffic:
    """Opens all sockets at once, in both namespaces: rights may be dropped before ``steps`` sends."""

    def __init__(self, site: Site, expected: Expected) -> None:
        """Raises NetobsError if the kernel refuses a socket."""
        self._expected = expected
        self._frames = [*crafted()]
        self._sockets = contextlib.ExitStack()
        try:
            self._open(site)
        except OSError as error:
            self.close()
            hint = "run it as root (CAP_NET_RAW)" if isinstance(error, PermissionError) else "the kernel lacks it"
            raise NetobsError(
                f"cannot open the sockets that send the test's packets: {error.strerror}", hint
            ) from error

    def _open(self, site: Site) -> None:
        families = [_IPV4, _IPV6] if site.has_ipv6 else [_IPV4]
        near = [_Sockets(self._sockets, NEAR, each, _NEAR_PORT) for each in families]
        self._raw = {EGRESS: self._open_raw(NEAR)}
        with site.far():
            self._raw[INGRESS] = self._open_raw(FAR)
            far = [_Sockets(self._sockets, FAR, each, _FAR_PORT) for each in families]
        self._pairs = [*zip(near, far)]

    def _open_raw(self, end: End) -> socket.socket:
        sock = self._sockets.enter_context(socket.socket(socket.AF_PACKET, socket.SOCK_RAW))
        sock.setsockopt(_SOL_PACKET, _PACKET_VNET_HDR, 1)
        sock.bind((end.name, 0))
        return sock

    def close(self) -> None:
        """Closes the sockets."""
        self._sockets.close()

    def send_round(self) -> Iterator[None]:
        """Each frame, datagram and echo several times. It yields for pauses, in which the kernel works off its queue,
        which may have no room for all of them (net.core.netdev_max_backlog).

        :raises OSError: the kernel did not take one.
        """
        for _ in range(COPIES):
            for frame in self._frames:
                for direction, sock in self._raw.items():
                    self._send_frame(frame, direction, sock)
            for near, far in self._pairs:
                self._send_datagrams(near, far, EGRESS)
                self._send_datagrams(far, near, INGRESS)
                self._send_echo(near, far)
            yield
        for near, far in self._pairs:
            self._send_segments(near, far, EGRESS)
            self._send_segments(far, near, INGRESS)

    def _send_frame(self, frame: Crafted, direction: int, sock: socket.socket) -> None:
        header = bytes(_VNET_HEADER.size)
        if frame.mss:
            what = _NEEDS_CSUM, _GSO_TCPV4, frame.header_octets, frame.mss
            header = _VNET_HEADER.pack(*what, _TCP_START, _TCP_CSUM_OFFSET)
        sock.send(header + frame.data)
        if frame.key is None:
            self._expected.add_to_ledger(frame.reason, frame.packets, frame.octets)
        else:
            flow, elements = Flow(direction, *frame.key), frame.elements or {}
            self._expected.add(frame.kind, flow, frame.packets, frame.octets, elements)

    def _send_datagrams(self, source: _Sockets, to: _Sockets, direction: int) -> None:
        for octets in _PAYLOAD_OCTETS:
            source.udp.sendto(bytes(octets), to.at)
            self._add_datagrams(source, to, direction, 1, octets)

    def _send_segments(self, source: _Sockets, to: _Sockets, direction: int) -> None:
        """One call of UDP_SEGMENT: a super-packet, where the kernel has those of UDP on a veth."""
        source.udp.setsockopt(_SOL_UDP, _UDP_SEGMENT, _SEGMENT_OCTETS)
        octets = _SEGMENTS * _SEGMENT_OCTETS
        source.udp.sendto(bytes(octets), to.at)
        source.udp.setsockopt(_SOL_UDP, _UDP_SEGMENT, 0)
        self._add_datagrams(source, to, direction, _SEGMENTS, octets)

    def _add_datagrams(self, source: _Sockets, to: _Sockets, direction: int, packets: int, payload: int) -> None:
        octets = packets * (source.family.header_octets + _UDP_OCTETS) + payload
        where = f.UDP, source.at[1], to.at[1]
        source.family.add(self._expected, "UDP", direction, where, (packets, octets))

    def _send_echo(self, near: _Sockets, far: _Sockets) -> None:
        """A request; the kernel answers in the far namespace."""
        family = near.family
        for octets in _PAYLOAD_OCTETS:
            message = bytearray(f.icmp(family.echo_request, payload=bytes(octets)))
            if family.version == 4:  # of ICMPv6 the kernel computes it
                message[2:4] = f.checksum(bytes(message)).to_bytes(2, "big")
            near.icmp.sendto(message, (far.at[0], 0))
            sent = 1, family.header_octets + len(message)
            for direction, kind in ((EGRESS, family.echo_request), (INGRESS, family.echo_reply)):
                family.add(self._expected, "ICMP echo", direction, (family.icmp, 0, kind << 8), sent)

    def converse(self) -> Iterator[None]:
        """A TCP conversation for each version of IP, one step of all of them each time, without waiting.

        :raises OSError: a connection failed.
        """
        talks = [(near, far, Conversation(near.tcp, far.tcp)) for near, far in self._pairs]
        steps = [talk.steps() for _, _, talk in talks]
        while steps:
            steps = [each for each in steps if next(each, True) is None]
            yield
        for near, far, talk in talks:
            ends = ((near, far, EGRESS), (far, near, INGRESS))
            for side, (source, to, direction) in zip(talk.sides, ends):
                where = f.TCP, source.at[1], to.at[1]
                sent = side.sent(source.family.header_octets)
                source.family.add(self._expected, "TCP", direction, where, sent, tcpControlBits=FLAGS)


class _Sockets:
    """Those of one end and one version of IP, bound to ``at``."""

    def __init__(self, stack: contextlib.ExitStack, end: End, family: _Family, port: int) -> None:
        self.family = family
        self.at = family.address(end), port
        self.udp, self.tcp = (
            stack.enter_context(socket.socket(family.family, kind)) for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM)
        )
        for sock in (self.udp, self.tcp):
            sock.bind(self.at)
        self.icmp = stack.enter_context(socket.socket(family.family, socket.SOCK_RAW, family.icmp))
