"""What a network card and its driver do with packets before netobs sees them, from ethtool's ioctl (linux/ethtool.h).

Any user may ask. A feature is named as ``ethtool -k`` names the ones of the kernel.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import socket
import struct

_SIOCETHTOOL = 0x8946
_GSTRINGS, _GSSET_INFO, _GFEATURES = 0x1B, 0x37, 0x3A
_ETH_SS_FEATURES = 4
_STRING_BYTES, _BITS = 32, 32
_SET = struct.Struct("=IIQI")  # struct ethtool_sset_info, one number
_HEAD = struct.Struct("=III")  # struct ethtool_gstrings; struct ethtool_gfeatures has one word less
_BLOCK = struct.Struct("=IIII")  # struct ethtool_get_features_block: available, requested, active, never_changed

GRO, LRO, HARDWARE_GRO, HARDWARE_TC = "rx-gro", "rx-lro", "rx-gro-hw", "hw-tc-offload"
SHOWN = (GRO, LRO, HARDWARE_GRO, "tx-generic-segmentation", "tx-tcp-segmentation", HARDWARE_TC)


def features(name: str) -> dict[str, bool]:
    """Whether each of ``SHOWN`` that the kernel knows is on. Empty where the interface is gone or does not tell."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        names = _names(sock, name)
        blocks = -(-len(names) // _BITS)
        buffer = ctypes.create_string_buffer(struct.pack("=II", _GFEATURES, blocks), 8 + blocks * _BLOCK.size)
        _ask(sock, name, buffer)
        active = [_BLOCK.unpack_from(buffer, 8 + number * _BLOCK.size)[2] for number in range(blocks)]
        known = {each: at for at, each in enumerate(names)}
        return {each: bool(active[known[each] // _BITS] >> known[each] % _BITS & 1) for each in SHOWN if each in known}
    return {}


def _names(sock: socket.socket, name: str) -> tuple[str, ...]:
    """The kernel's features; their numbers are the same for all interfaces (net/ethtool/common.c)."""
    if not _known:
        buffer = ctypes.create_string_buffer(_SET.pack(_GSSET_INFO, 0, 1 << _ETH_SS_FEATURES, 0), _SET.size)
        _ask(sock, name, buffer)
        count = _SET.unpack(buffer.raw)[3]
        buffer = ctypes.create_string_buffer(_HEAD.pack(_GSTRINGS, _ETH_SS_FEATURES, count), 12 + count * _STRING_BYTES)
        _ask(sock, name, buffer)
        texts = (buffer.raw[at : at + _STRING_BYTES] for at in range(12, len(buffer), _STRING_BYTES))
        _known.extend(text.partition(b"\0")[0].decode("ascii", "replace") for text in texts)
    return tuple(_known)


_known: list[str] = []


def _ask(sock: socket.socket, name: str, buffer: ctypes.Array[ctypes.c_char]) -> None:
    fcntl.ioctl(sock, _SIOCETHTOOL, struct.pack("16sP", name.encode(), ctypes.addressof(buffer)))
