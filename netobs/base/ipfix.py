"""The fixed headers of an IPFIX Message (RFC 7011, section 3) as numpy dtypes."""

from __future__ import annotations

import numpy as np

IPFIX_VERSION = 10
FIRST_DATA_SET_ID = 256
MAX_MESSAGE_BYTES = 65535
NTP_EPOCH_S = 2_208_988_800
"""Seconds from 1900, where NTP and the abstract types dateTimeMicroseconds and -Nanoseconds begin, to 1970 (6.1.9)."""

MESSAGE_HEADER = np.dtype(
    [
        ("version", ">u2"),
        ("length", ">u2"),
        ("export_time", ">u4"),
        ("sequence", ">u4"),
        ("observation_domain", ">u4"),
    ]
)
"""Message Header, 16 bytes (RFC 7011, 3.1)."""

SET_HEADER = np.dtype([("set_id", ">u2"), ("set_length", ">u2")])
"""Set Header, 4 bytes (RFC 7011, 3.3.2)."""
