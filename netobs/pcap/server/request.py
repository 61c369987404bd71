"""A client's request: one line, before its stream starts. A silent client gets the configured stream."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any

from netobs.base.errors import NetobsError
from netobs.base.log import printable
from netobs.config.schema import PACKET_FORMATS, PacketCaptureConfig
from netobs.config.text import nearest, quoted
from netobs.config.values import BadValue, Boolean, Duration, FilterTexts, Integer, Kind, Text

MAX_LINE_BYTES = 4096
"""With its newline: room for a filter as long as the configuration allows, and for everything else."""
END_LINE = b"end\n"
"""A client may send this later: its stream then ends with statistics."""

_KINDS: dict[str, Kind] = {
    "filter": FilterTexts(),
    "snaplen": Integer(64, 262_144),
    "format": PACKET_FORMATS,
    "interface": Text("the name of an interface", 64),
    "count": Integer(1, (1 << 63) - 1),
    "duration": Duration("1ms", "24h"),
    "recorded": Boolean(),
}
_NOT_WITH_RECORDED = {
    "filter": "the recorder keeps what packet_capture.filter selects: read the recording with a filter",
    "duration": "a recording has its own",
}
_TLS_HANDSHAKE = b"\x16\x03"  # RFC 8446, section 5.1: the first bytes of a client that speaks TLS


class Refusal(NetobsError):
    """A client gets no stream; the message is for the client. ``reason`` is a word for the counters."""

    def __init__(self, message: str, hint: str = "", reason: str = "request") -> None:
        super().__init__(message, hint)
        self.reason = reason


@dataclass(frozen=True)
class Request:
    """The content of the line; empty, 0 or false for missing keys."""

    filter: tuple[str, ...] = ()
    snaplen: int = 0
    format: str = ""
    interface: str = ""
    count: int = 0
    duration_ns: int = 0
    recorded: bool = False

    def completed(self, config: PacketCaptureConfig) -> Request:
        """With the configured values where it says nothing; never more than they allow."""
        durations = [each for each in (self.duration_ns, 0 if self.recorded else config.max_duration_ns) if each]
        return replace(
            self,
            format=self.format or config.format,
            snaplen=min(self.snaplen or config.snaplen, config.snaplen),
            duration_ns=min(durations, default=0),
        )


def parse_request(line: bytes) -> Request:
    """The request in ``line``: a JSON object, or a filter. Raises Refusal."""
    text = _text(line).strip()
    if text.startswith("{"):
        return _from_json(text)
    return Request(filter=_value("filter", text)) if text else Request()


def _text(line: bytes) -> str:
    if line.startswith(_TLS_HANDSHAKE):
        raise Refusal("this port does not speak TLS", "set packet_capture.cert and key there, or connect without")
    if len(line) >= MAX_LINE_BYTES:
        raise Refusal(f"the request has more than {MAX_LINE_BYTES} bytes", "a shorter filter, or fewer of them")
    try:
        text = line.decode().rstrip("\r\n")
    except UnicodeDecodeError:
        text = "\0"
    if not text.replace("\t", " ").isprintable():
        raise Refusal("the request is not a line of text", "send a filter or a JSON object, or nothing")
    return text.replace("\t", " ")


def _from_json(text: str) -> Request:
    try:
        given = json.loads(text, object_pairs_hook=_each_once)
    except (ValueError, RecursionError) as error:
        reason = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
        raise Refusal(f"the request is not JSON: {printable(reason)}") from error
    values: dict[str, Any] = {}
    for key, value in given.items():
        if key not in _KINDS:
            near = nearest(key, _KINDS)
            hint = f"did you mean {quoted(near)}?" if near else f"known are {', '.join(_KINDS)}"
            raise Refusal(f"the request has an unknown key {quoted(key)}", hint)
        values[f"{key}{_KINDS[key].suffix}"] = _value(key, value)
    for key, reason in _NOT_WITH_RECORDED.items():
        if values.get("recorded") and key in given:
            raise Refusal(f'the request has "{key}" beside "recorded"', reason)
    return Request(**values)


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = [key for key, _ in pairs]
    for key in keys:
        if keys.count(key) > 1:
            raise ValueError(f"{quoted(key)} is listed twice")
    return dict(pairs)


def _value(key: str, value: object) -> Any:
    try:
        return _KINDS[key].parse(value)
    except BadValue as error:
        raise Refusal(f"{key}: {'; '.join(error.reasons)}") from error
