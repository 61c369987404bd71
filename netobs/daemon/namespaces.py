"""Follows the network namespaces that the configuration selects, as they come and go, by the root helper."""

from __future__ import annotations

import errno
import functools
import logging
import os
import socket
from collections import deque
from collections.abc import Collection, Iterable, Iterator
from typing import Callable

from netobs.base.clock import NS_PER_S
from netobs.base.keeper import NOTHING, Keeper, file_of
from netobs.base.kept_record import KeptRecord
from netobs.base.loop import EventLoop, Timer
from netobs.config import CaptureConfig
from netobs.daemon.helper_calls import HelperCalls
from netobs.daemon.namespace import Namespace
from netobs.datapath.capture import Capture
from netobs.datapath.layout import MAX_NAMESPACES
from netobs.kernel import inotify
from netobs.kernel.helper_client import HELPER_SOCKET, Helper
from netobs.kernel.helper_protocol import SOCKET
from netobs.kernel.interfaces import Interface
from netobs.kernel.kept_links import places_name

log = logging.getLogger("netobs.capture")

Opened = tuple[tuple[socket.socket, socket.socket], int]
POLL_NS = 20_000_000
"""How often to look whether a new file is a namespace yet, which takes 10 to 25 ms, or whether one is gone."""
YOUNG_NS = 2 * NS_PER_S
"""A file that is no namespace after this time will not become one."""
LINGER_NS = 5 * NS_PER_S
"""A namespace without a name whose programs still run is looked at this often: a process may live in it."""
RETRY_NS = 5 * NS_PER_S
"""How often to ask for a helper that is not there."""
NUMBERS = "netns"
"""The name in the keeper of what the numbers of namespaces are."""
REMEDY = "install the package netobs-helper, allow the namespaces in /etc/netobs-helper.toml, and start "
REMEDY += "netobs-helper.socket"


def without_helper(why: object) -> str:
    """The sentence for operators whose namespaces are not measured."""
    return f"capture.netns: no network namespace is measured, the root helper cannot be asked ({why}); {REMEDY}"


def _close(opened: Opened) -> None:
    for sock in opened[0]:
        sock.close()


def usual_helper() -> Helper:
    """The helper at its usual socket, or at the one that the environment names."""
    return Helper(os.environ.get(HELPER_SOCKET, SOCKET))


class Namespaces:
    """``start`` -> follows -> ``stop`` -> ``finish`` takes all programs off -> ``close``."""

    def __init__(
        self,
        config: CaptureConfig,
        capture: Capture,
        loop: EventLoop,
        changed: Callable[[int], None],
        ended: Callable[[int], None],
        helper: Helper,
        record: KeptRecord,
        keeper: Keeper = NOTHING,
    ) -> None:
        """``changed``: interfaces or namespaces are others now. ``ended``: the namespace with this number has gone, and
        no program counts its packets any more. ``record``: where the next process finds the numbers, which flows in the
        kernel have."""
        self._config, self._capture, self._loop = config, capture, loop
        self._changed, self._ended = changed, ended
        self._calls = HelperCalls(helper, loop, self._on_away)
        self._is_followed = False
        self._selector = config.namespaces
        self._present: dict[str, Namespace] = {}
        self._ending: list[Namespace] = []
        self._new: dict[str, int] = {}  # name: when it was first heard of; ordered
        self._opening: tuple[str, int] | None = None  # of those, the one that the helper is asked for
        self._record, self._keeper = record, keeper
        self._names: dict[int, str] = {int(each): name for each, name in (record.read() or {}).items()}
        """Of all numbers ever given."""
        self._free: deque[int] = deque()
        self._events = -1
        self._timers: dict[Callable[[int], None], Timer] = {}
        self._said: set[str] = set()

    def start(self, now_ns: int) -> None:
        """Asks for the namespaces that are there, and follows them from now on."""
        self._capture.points.interface_names.name_namespaces(self._names)  # of flows that the former process has left
        self._drop_kept("l-", [name for name in self._names.values() if self._selector.matches(name)])
        if self._config.netns or self._unwanted():
            self._is_followed = True
            self._connect(now_ns)

    @property
    def interfaces(self) -> Iterator[Interface]:
        """All that are attached to, or noted, in all namespaces."""
        return (each for namespace in self._present.values() for each in namespace.points.names.values())

    @property
    def present(self) -> Iterable[Namespace]:
        """Those that are measured."""
        return self._present.values()

    @property
    def names(self) -> dict[int, str]:
        """The name of each number; also of those that have gone, as flows of them may be on their way."""
        return self._names

    def __len__(self) -> int:
        return len(self._present)

    def select(self, config: CaptureConfig, now_ns: int) -> None:
        """Switches to other namespaces, interfaces and directions."""
        self._config, self._selector = config, config.namespaces
        for name, namespace in list(self._present.items()):
            if self._selector.matches(name):
                namespace.select(config, now_ns)
            else:
                del self._present[name]
                namespace.stop()
                self._take_off(namespace, now_ns)
        self._is_followed = True
        if self._events >= 0:
            self._calls.call(self._calls.helper.list, self._listed)
        else:
            self._connect(now_ns)

    def swap(self, then: Callable[[int], None], now_ns: int) -> None:
        """The capture has another datapath: counts in its maps from now on. ``then`` is called when no program counts
        in others any more."""
        for namespace in (*self._present.values(), *self._ending):
            namespace.swap(self._capture.datapath)
        self._calls.when_idle(then, now_ns)

    def stop(self) -> None:
        """Follows nothing any more. The programs stay where they are."""
        self._is_followed = False
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        self._new.clear()
        self._forget_events()
        for namespace in self._present.values():
            namespace.stop()

    def finish(self, then: Callable[[int], None], now_ns: int) -> None:
        """After ``stop``: takes the programs off all interfaces, one namespace after the other, then calls ``then``."""
        if not self._present:
            self._calls.when_idle(then, now_ns)
            return
        _, namespace = self._present.popitem()
        self._ending.append(namespace)
        namespace.attaching.finish(lambda later_ns: self.finish(then, later_ns), now_ns)

    def close(self, keep: bool = False) -> None:
        """Frees everything; with ``keep``, the links stay for the next process."""
        self._forget_events()
        for namespace in (*self._present.values(), *self._ending):
            namespace.close(keep)
        self._present.clear()
        self._ending.clear()
        self._calls.close()

    def _at(self, when_ns: int, callback: Callable[[int], None]) -> None:
        """Calls ``callback`` then, and at no other time that was asked for before."""
        if callback in self._timers:
            self._timers[callback].cancel()
        self._timers[callback] = self._loop.call_at(when_ns, callback)

    def _connect(self, now_ns: int) -> None:
        self._forget_events()
        self._calls.call(self._calls.helper.events_and_list, self._connected)

    def _connected(self, answer: tuple[int, dict[str, int]] | OSError, now_ns: int) -> None:
        if isinstance(answer, OSError):
            self._failed(answer, now_ns)
            return
        events, inodes = answer
        if not self._is_followed or self._events >= 0:
            os.close(events)
            return
        self._events = events
        self._loop.add_reader(events, self._on_events)
        if self._said:
            log.info("capture.netns: the root helper answers")
            self._said.clear()
        self._listed(inodes, now_ns)

    def _failed(self, error: OSError, now_ns: int) -> None:
        """The helper answers with an error, or not at all, and is asked again later. Until there has been a namespace,
        there is no folder of their names (ENOENT)."""
        if error.errno not in (errno.ENOENT, errno.EPIPE):
            self._on_away(str(error.strerror), now_ns)
        elif self._is_followed:
            self._at(now_ns + RETRY_NS, self._connect)

    def _on_away(self, why: str, now_ns: int) -> None:
        if self._is_followed:
            if self._config.netns:
                self._say(without_helper(why), "helper")
            self._at(now_ns + RETRY_NS, self._connect)

    def _listed(self, inodes: dict[str, int] | OSError, now_ns: int) -> None:
        if isinstance(inodes, OSError):
            self._failed(inodes, now_ns)
            return
        if not self._is_followed:
            return
        for name in [name for name, each in self._present.items() if inodes.get(name) != each.inode]:
            self._leave(name, now_ns)
        for kind in ("l-", "places-"):  # of those that went between the former process and this one
            self._drop_kept(kind, inodes.keys())
        for number in self._unwanted():
            ask = functools.partial(self._calls.helper.open_two, self._names[number])
            self._calls.call(ask, functools.partial(self._end_unwanted, number))
        for name in inodes:
            self._hear_of(name, now_ns)

    def _drop_kept(self, kind: str, names: Collection[str]) -> None:
        """Of the former process, where the namespaces are not among ``names``: its links, or where its programs are."""
        gone = {str(number) for number, name in self._names.items() if name not in names}
        for kept in self._keeper.names() if gone else ():
            if kept.startswith(kind) and kept.split("-")[1] in gone:
                self._keeper.drop(kept)

    def _unwanted(self) -> list[int]:
        """The numbers of namespaces that the former process has measured, and that are not selected any more."""
        ending, kept = {each.number for each in self._ending}, self._keeper.names()
        return [
            number for number, name in self._names.items()
            if places_name(number) in kept and number not in ending and not self._selector.matches(name)
        ]  # fmt: skip

    def _end_unwanted(self, number: int, opened: Opened | OSError, now_ns: int) -> None:
        """Takes the former process's programs off the interfaces there."""
        if isinstance(opened, OSError):
            log.debug("network namespace %s: %s", self._names[number], opened.strerror)
        elif self._is_followed and number in self._unwanted():
            self._take_off(self._made(self._names[number], number, opened), now_ns)
        else:
            _close(opened)

    def _take_off(self, namespace: Namespace, now_ns: int) -> None:
        """Its name stays, and its interfaces lose the programs."""
        self._ending.append(namespace)
        let_go = functools.partial(self._let_go, namespace)
        namespace.attaching.finish(functools.partial(self._calls.when_idle, let_go), now_ns)

    def _made(self, name: str, number: int, opened: Opened) -> Namespace:
        return Namespace(
            name, number, opened, self._calls, self._capture, self._config, self._loop, self._changed, self._keeper
        )

    def _forget_events(self) -> None:
        if self._events >= 0:
            self._loop.remove(self._events)
            os.close(self._events)
            self._events = -1

    def _on_events(self, now_ns: int) -> None:
        for event in list(inotify.read_events(self._events)):
            if event.lost:
                self._connect(now_ns)
                return
            if event.appeared:
                self._hear_of(event.name, now_ns)
            else:
                self._leave(event.name, now_ns)

    def _hear_of(self, name: str, now_ns: int) -> None:
        if name not in self._present and self._selector.matches(name):
            self._new.setdefault(name, now_ns)
            self._at(now_ns, self._open_one)

    def _open_one(self, now_ns: int) -> None:
        """The namespace that was heard of first. The next one has its turn when this one is there."""
        if self._new and not self._opening:
            name, since_ns = next(iter(self._new.items()))
            del self._new[name]
            self._opening = (name, since_ns)
            helper = self._calls.helper
            self._calls.call(lambda: helper.open_two(name), functools.partial(self._opened, name, since_ns))

    def _opened(self, name: str, since_ns: int, answer: Opened | OSError, now_ns: int) -> None:
        is_wanted = self._opening == (name, since_ns) and self._selector.matches(name)
        if self._opening == (name, since_ns):
            self._opening = None
        pause_ns = 0
        if not isinstance(answer, OSError):
            if is_wanted and self._is_followed and name not in self._present:
                self._follow(name, answer, now_ns)
            else:
                _close(answer)
        elif answer.errno == errno.EAGAIN:
            if is_wanted and now_ns - since_ns < YOUNG_NS:
                self._new[name] = since_ns
                pause_ns = POLL_NS
        elif answer.errno not in (errno.ENOENT, errno.EPIPE):
            self._say(f"network namespace {name}: not measured: {answer.strerror}")
        if self._new and self._is_followed:
            self._at(now_ns + pause_ns, self._open_one)

    def _follow(self, name: str, opened: Opened, now_ns: int) -> None:
        number = self._number_for(name)
        if not number:
            _close(opened)
            self._say(f"more than {MAX_NAMESPACES} network namespaces match capture.netns: the others are not measured")
            return
        namespace = self._made(name, number, opened)
        if number in self._free:
            self._free.remove(number)
        self._names[number] = name
        self._record.write({str(each): known for each, known in self._names.items()})
        self._capture.points.interface_names.name_namespaces(self._names)
        self._present[name] = namespace
        log.info("network namespace %s: measured, with the number %d", name, number)
        namespace.start()
        self._changed(now_ns)

    def _number_for(self, name: str) -> int:
        """The one that the former process gave this namespace, a new one, or one that is free; 0 if there is none."""
        in_use = {each.number for each in (*self._present.values(), *self._ending)}
        former = next((each for each, known in self._names.items() if known == name and each not in in_use), 0)
        new = len(self._names) + 1 if len(self._names) < MAX_NAMESPACES else 0
        unused = next((each for each in self._names if each not in in_use), 0)
        return former or new or next(iter(self._free), unused)

    def _leave(self, name: str, now_ns: int) -> None:
        """The namespace has lost its name: nothing of this process may keep it alive."""
        self._new.pop(name, None)
        if self._opening and self._opening[0] == name:
            self._opening = None
        namespace = self._present.pop(name, None)
        if namespace is None:
            return
        namespace.leave()
        self._ending.append(namespace)
        self._let_go(namespace, now_ns)

    def _let_go(self, namespace: Namespace, now_ns: int) -> None:
        namespace.left_ns = now_ns
        self._at(now_ns, self._end_those_gone)

    def _end_those_gone(self, now_ns: int) -> None:
        for namespace in [each for each in self._ending if each.is_gone]:
            self._ending.remove(namespace)
            namespace.close()
            self._ended(namespace.number)
            self._free.append(namespace.number)
            log.info("network namespace %s: gone", namespace.name)
            self._changed(now_ns)
        if self._ending:
            youngest_ns = max(each.left_ns for each in self._ending)
            self._at(now_ns + (POLL_NS if now_ns - youngest_ns < LINGER_NS else LINGER_NS), self._end_those_gone)

    def _say(self, text: str, what: str = "") -> None:
        """Warns once of ``what``, or of exactly this, until the helper answers again."""
        if (what or text) not in self._said:
            self._said.add(what or text)
            log.warning("%s", text)


def followed(
    config: CaptureConfig,
    capture: Capture,
    loop: EventLoop,
    changed: Callable[[int], None],
    ended: Callable[[int], None],
    keeper: Keeper,
) -> Namespaces:
    """As ``Namespaces``, by the helper of this host."""
    record = KeptRecord(file_of(keeper, NUMBERS))
    return Namespaces(config, capture, loop, changed, ended, usual_helper(), record, keeper)
