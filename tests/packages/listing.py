"""All files of a host, to find out what a package leaves behind."""

from __future__ import annotations

from tests.packages.host import Host

# dpkg's, apt's and systemd's own books, in which an installation and a removal are entries; and what tests bring in.
BOOKS = (
    "/var/lib/dpkg",
    "/var/lib/apt",
    "/var/cache/apt",
    "/var/log/dpkg.log",
    "/var/log/apt",
    "/var/log/journal",
    "/var/log/alternatives.log",
    "/var/cache/ldconfig",
)
# The account stays, as is usual: files elsewhere may be its own. Of each file its tools keep the one before.
ACCOUNTS = frozenset(f"/etc/{name}" for name in ("passwd", "group", "shadow", "gshadow"))
ACCOUNT_FILES = ACCOUNTS | {f"{name}-" for name in ACCOUNTS}
# Kind, mode, owner, and for files size and time of the last change; a directory changes with what comes and goes in it.
FORM = r"%p\t%y %m %u:%g %l\t%y %s %T@\n"


def listing(host: Host) -> dict[str, str]:
    """Every path on the root file system but those of ``BOOKS``, and what there is."""
    found = {}
    for line in host.run("find", "/", "-xdev", "-printf", FORM).stdout.splitlines():
        path, what, content = line.split("\t")
        if not path.startswith(BOOKS):
            found[path] = what if content.startswith("d ") else f"{what} {content}"
    return found


def differences(before: dict[str, str], after: dict[str, str]) -> dict[str, str]:
    """``new``, ``gone`` or ``changed`` for each path that is not the same."""
    result = {}
    for path in sorted(before.keys() | after.keys()):
        if before.get(path) != after.get(path):
            result[path] = "new" if path not in before else "gone" if path not in after else "changed"
    return result
