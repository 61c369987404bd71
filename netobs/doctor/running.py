"""What the running daemon says of itself: the state document that ``netobs status --json`` prints."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from netobs.base import clock
from netobs.base.clock import NS_PER_S
from netobs.doctor.finding import CONFIGURATION, DAEMON, Finding

State = Mapping[str, Any]
_RECENT_S = 3600.0
_LONG_SILENCE_S = 1.0


def pid_of(state: State | None) -> int:
    """The daemon's process; 0 if it does not say."""
    number = _part(state, "daemon").get("pid")
    return number if isinstance(number, int) else 0


def file_of(state: State | None) -> str:
    """The configuration file that it reads; "" if it does not say."""
    return str(_part(state, "configuration").get("file") or "")


def findings(state: State) -> Iterator[Finding]:
    """Whatever the document has; what it lacks is left out."""
    daemon = _part(state, "daemon")
    yield Finding("daemon", "ok", f"netobs {daemon.get('version')} runs, process {daemon.get('pid')}", (DAEMON,))
    yield from _configuration(_part(state, "configuration"))
    now_s = clock.read_pair().realtime_ns / NS_PER_S
    for reason, count in _part(_part(state, "ledger"), "reasons").items():
        if count.get("is_loss") and count.get("packets"):
            yield _loss(f"{count['packets']} packets are in no flow: {reason}", count, (DAEMON,), now_s)
    silence_s = _part(state, "loop").get("longest_silence_s")
    if silence_s is not None and silence_s >= _LONG_SILENCE_S:
        yield Finding(
            "loop-silence", "warning",
            f"the daemon's loop was busy for {silence_s:.1f} s with {_part(state, 'loop').get('in') or 'one step'}",
            (DAEMON,), "evictions are late; no packet is lost by that",
            "look for what slows the host: memory pressure, a slow disk, too few CPUs",
        )  # fmt: skip
    for collector in state.get("collectors") or ():
        yield from _collector(collector, now_s)


def _configuration(found: Mapping[str, Any]) -> Iterator[Finding]:
    where = (CONFIGURATION,)
    if found.get("is_newer"):
        yield Finding(
            "configuration-newer", "warning", f"{found.get('file')} has changed since the daemon read it", where,
            "it runs on with what it read", "netobs reload",
        )  # fmt: skip
    if found.get("waits"):
        yield Finding(
            "configuration-waits", "note", f"keys that wait for the next start: {', '.join(found['waits'])}", where,
            "it runs on with their old values", "restart netobs",
        )  # fmt: skip
    reload = found.get("reload") or {}
    if reload.get("failed"):
        yield Finding(
            "reload-failed", "warning", f"the last reload failed: {reload.get('error')}", where,
            "it runs on with what it read before", "correct the file, and reload again",
        )  # fmt: skip


def _loss(what: str, count: Mapping[str, Any], where: tuple[str, ...], now_s: float) -> Finding:
    """A note if it has ended long ago."""
    last_s = count.get("last_s")
    is_old = last_s is not None and now_s - last_s > _RECENT_S
    when = f", the last {(now_s - last_s) / 60:.0f} min ago" if last_s is not None else ""
    return Finding(
        "loss", "note" if is_old else "warning", f"{what}{when}", where,
        "every other packet is in a flow" if where == (DAEMON,) else "",
        "netobs(8), section DIAGNOSTICS, has the remedy for each reason",
    )  # fmt: skip


def _collector(found: Mapping[str, Any], now_s: float) -> Iterator[Finding]:
    where = (f'collector "{found.get("name")}"',)
    reach, last = found.get("reach"), found.get("last_error") or {}
    if reach in ("down", "suspect"):
        yield Finding(
            "collector-down", "problem" if reach == "down" else "warning",
            f"the collector at {found.get('address')} is {reach}" + (f": {last['text']}" if last.get("text") else ""),
            where, "flows wait in memory, or in the spool, as far as that has room",
            "check that the collector runs, and that no firewall blocks its port",
        )  # fmt: skip
    elif reach:
        yield Finding("collector", "ok", f"{found.get('protocol')} over {found.get('transport')}: {reach}", where)
    for reason, count in _part(found, "not_sent").items():
        if count.get("flows"):
            yield _loss(f"{count['flows']} flows were not sent: {reason}", count, where, now_s)


def _part(state: Mapping[str, Any] | None, name: str) -> Mapping[str, Any]:
    part = (state or {}).get(name)
    return part if isinstance(part, Mapping) else {}
