"""As much of HTTP/1.1 as it takes to give one thing to those who ask for it (RFC 9110, RFC 9112)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

REASONS = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    431: "Request Header Fields Too Large",
    503: "Service Unavailable",
    505: "HTTP Version Not Supported",
}
_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_REQUEST_LINE = re.compile(rf"({_TOKEN}) ([!-~]+) HTTP/(\d)\.(\d)")
_FIELD = re.compile(rf"({_TOKEN}):[ \t]*([ -~\t\x80-\xff]*?)[ \t]*")
_END = re.compile(rb"\r?\n\r?\n")
_QUALITY = re.compile(r"\s*q\s*=\s*([01](?:\.\d{0,3})?)\s*", re.IGNORECASE)


class BadRequest(ValueError):
    """What was sent is no request that can be answered. ``status``: 400 or 505."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class Request(NamedTuple):
    """``path``: without the query. ``fields``: by their names in lower case; repeated ones are joined by commas.
    ``keeps``: whether the connection goes on."""

    method: str
    path: str
    fields: Mapping[str, str]
    keeps: bool


def cut(data: bytes) -> int:
    """The length of the first whole request in ``data``, with the empty line at its end; 0 if it is not whole yet."""
    found = _END.search(data)
    return found.end() if found else 0


def parse(data: bytes) -> Request:
    """The request that ``cut`` has found.

    :raises BadRequest: it does not follow RFC 9112, or has a body, or another version.
    """
    first, *rest = re.split(r"\r?\n", data.decode("latin-1").strip("\r\n"))
    line = _REQUEST_LINE.fullmatch(first)
    if line is None:
        raise BadRequest(400, "no request line of HTTP")
    method, target, major, minor = line.groups()
    if major != "1":
        raise BadRequest(505, "HTTP/1.1 is served")
    fields: dict[str, str] = {}
    for text in rest:
        field = _FIELD.fullmatch(text)
        if field is None:
            raise BadRequest(400, "a header field is not right")
        name, value = field[1].lower(), field[2]
        fields[name] = f"{fields[name]}, {value}" if name in fields else value
    if "transfer-encoding" in fields or fields.get("content-length", "0") != "0":
        raise BadRequest(400, "a body is not read")
    if minor != "0" and "host" not in fields:
        raise BadRequest(400, "the field Host is missing")  # RFC 9112, section 3.2
    wishes = {each.strip().lower() for each in fields.get("connection", "").split(",")}
    keeps = "close" not in wishes if minor != "0" else "keep-alive" in wishes
    path = re.sub(r"^https?://[^/?]*", "", target, flags=re.IGNORECASE).partition("?")[0] or "/"
    return Request(method, path, fields, keeps)


def accepts(accept: str, media_type: str) -> bool:
    """Whether a field Accept names ``media_type``, with a quality above 0 (RFC 9110, section 12.5.1)."""
    for each in accept.split(","):
        name, *parameters = each.split(";")
        if name.strip().lower() == media_type:
            qualities = [found[1] for found in map(_QUALITY.fullmatch, parameters) if found]
            return not qualities or float(qualities[0]) > 0
    return False


def response(
    status: int, body: bytes, content_type: str = "text/plain; charset=utf-8", keeps: bool = False, head: bool = False
) -> bytes:
    """A whole response; with ``head``, without its body."""
    lines = [f"HTTP/1.1 {status} {REASONS[status]}", f"Content-Type: {content_type}", f"Content-Length: {len(body)}"]
    if status == 405:
        lines.append("Allow: GET, HEAD")
    lines.append(f"Connection: {'keep-alive' if keeps else 'close'}")
    return "\r\n".join([*lines, "", ""]).encode("ascii") + (b"" if head else body)


def refusal(status: int, what: str) -> bytes:
    """A response that says in one line why there is no other; the connection ends with it."""
    return response(status, f"{what}\n".encode())
