"""Requests of HTTP as clients send them, right and wrong."""

from __future__ import annotations

import re

import pytest

from netobs.base import http

PROMETHEUS = (
    b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1:9469\r\nUser-Agent: Prometheus/2.42.0\r\n"
    b"Accept: application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    b"text/plain;version=0.0.4;q=0.5,*/*;q=0.1\r\nAccept-Encoding: gzip\r\n"
    b"X-Prometheus-Scrape-Timeout-Seconds: 10\r\n\r\n"
)


@pytest.mark.parametrize("data", [b"", b"GET", PROMETHEUS[:-1], PROMETHEUS[:-2], b"GET / HTTP/1.0\n"])
def test_a_request_is_whole_with_its_empty_line(data: bytes) -> None:
    assert http.cut(data) == 0


@pytest.mark.parametrize("data", [PROMETHEUS, b"GET / HTTP/1.0\n\n", b"\xff\r\n\r\n"])
def test_what_follows_a_request_is_not_cut_off_with_it(data: bytes) -> None:
    assert http.cut(data + b"GET /metrics") == len(data)


def test_the_request_of_prometheus() -> None:
    request = http.parse(PROMETHEUS)
    assert (request.method, request.path, request.keeps) == ("GET", "/metrics", True)
    assert request.fields["x-prometheus-scrape-timeout-seconds"] == "10"
    accept = request.fields["accept"]
    assert http.accepts(accept, "application/openmetrics-text")
    assert http.accepts(accept, "text/plain")
    assert not http.accepts(accept, "text/html")


def test_a_quality_of_nothing_is_a_refusal() -> None:
    assert not http.accepts("application/openmetrics-text; q=0, text/plain", "application/openmetrics-text")
    assert not http.accepts("application/openmetrics-text;version=1.0.0;q=0.0", "application/openmetrics-text")
    assert http.accepts("Application/OpenMetrics-Text ;q=0.001", "application/openmetrics-text")
    assert not http.accepts("", "text/plain")


@pytest.mark.parametrize(
    ("lines", "keeps"),
    [
        ("GET / HTTP/1.1\r\nHost: a", True),
        ("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, Close", False),
        ("GET / HTTP/1.0", False),
        ("GET / HTTP/1.0\r\nConnection: Keep-Alive", True),
    ],
)
def test_whether_the_connection_goes_on(lines: str, keeps: bool) -> None:
    assert http.parse(f"{lines}\r\n\r\n".encode()).keeps == keeps


@pytest.mark.parametrize(
    ("target", "path"),
    [("/metrics?a=b", "/metrics"), ("http://a:1/metrics", "/metrics"), ("http://a", "/"), ("*", "*")],
)
def test_the_path(target: str, path: str) -> None:
    assert http.parse(f"GET {target} HTTP/1.1\r\nHost: a\r\n\r\n".encode()).path == path


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\r\n\r\n", 400),
        (b"GET /metrics\r\n\r\n", 400),
        (b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: \x00\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\n", 505),
    ],
)
def test_no_request(data: bytes, status: int) -> None:
    with pytest.raises(http.BadRequest) as caught:
        http.parse(data)
    assert caught.value.status == status


def test_a_response() -> None:
    said = http.response(200, b"body", "a/b", keeps=True)
    assert said == (b"HTTP/1.1 200 OK\r\nContent-Type: a/b\r\nContent-Length: 4\r\nConnection: keep-alive\r\n\r\nbody")
    assert http.response(200, b"body", "a/b", keeps=True, head=True) == said[:-4]


def test_a_refusal_says_what_is_allowed_and_ends_the_connection() -> None:
    said = http.refusal(405, "use GET")
    assert re.match(rb"HTTP/1.1 405 Method Not Allowed\r\n", said)
    assert b"\r\nAllow: GET, HEAD\r\nConnection: close\r\n\r\nuse GET\n" in said
    for status in http.REASONS:
        assert http.refusal(status, "x").startswith(f"HTTP/1.1 {status} ".encode())
