"""The fixed parts of an IPFIX Message as numpy dtypes, and their constants (RFC 7011, section 3).

``netobs.encode.template.wire`` derives the ``construct`` definitions from these dtypes, so each layout exists once.
construct itself is not imported here: it would cost the daemon 6 MB, and only parsing needs it.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np

from netobs.base.ipfix import MESSAGE_HEADER, SET_HEADER

TEMPLATE_SET_ID = 2
OPTIONS_TEMPLATE_SET_ID = 3
VARIABLE_LENGTH = 65535
LONG_LENGTH = 255  # strings from this length on have 3 octets of length, shorter ones 1 (RFC 7011, 7)
ENTERPRISE_BIT = 0x8000

TEMPLATE_HEADER = np.dtype([("template_id", ">u2"), ("field_count", ">u2")])
"""Template Record Header, 4 bytes (RFC 7011, 3.4.1)."""

FIELD_SPECIFIER = np.dtype([("element_id", ">u2"), ("octets", ">u2")])
"""Field Specifier, 4 bytes; 4 more with the enterprise number if the high bit of the id is set (RFC 7011, 3.2)."""

DATA_MESSAGE_HEADER = np.dtype(MESSAGE_HEADER.descr + SET_HEADER.descr)
"""The headers before the Data Records of a Message with one Data Set, 20 bytes."""


def big_endian(dtype: np.dtype[Any]) -> struct.Struct:
    """``dtype``, of unsigned integers in network byte order, for the values of a single header."""
    return struct.Struct(">" + "".join({2: "H", 4: "I"}[dtype[name].itemsize] for name in dtype.names or ()))
