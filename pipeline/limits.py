"""How much memory this process may have: the limits of its container, wherever they stand, and the machine."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath


def memory_limit(machine: int, root: Path = Path("/")) -> int:
    """Return the least of what the machine has and what control groups allow, in bytes.

    A group is held by its own limit and by those of all groups around it. Where this process stands among them is in
    /proc/self/cgroup, for version 2 and version 1 alike; a container may see its own group as the uppermost one, or be told
    a path that only the host has: what is not there is passed over.

    Parameters
    ----------
    machine : int
        Bytes that the machine has.
    root : Path
        Where /proc and /sys lie.
    """
    return min([machine, *_limits(root)])


def _limits(root: Path) -> Iterator[int]:
    mount = root / "sys/fs/cgroup"
    for file, name in _groups(root, mount):
        with contextlib.suppress(OSError):
            text = (file / name).read_text().strip()
            # Version 2 says "max" where there is no limit, version 1 a number larger than any machine.
            if text.isdigit():
                yield int(text)


def _groups(root: Path, mount: Path) -> Iterator[tuple[Path, str]]:
    """Yield every folder that may state a limit for this process, and the name of the file that does."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        lines = []
    yield mount, "memory.max"
    yield mount / "memory", "memory.limit_in_bytes"
    for line in lines:
        number, controllers, path = (*line.split(":", 2), "", "")[:3]
        # Names that lead out of what this process sees are another's.
        parts = [p for p in PurePosixPath(path).parts if p not in ("/", "..")]
        if number == "0":
            tops, name = (mount, mount / "unified"), "memory.max"
        elif "memory" in controllers.split(","):
            tops, name = (mount / "memory", mount / controllers), "memory.limit_in_bytes"
        else:
            continue
        for top in tops:
            for depth in range(1, len(parts) + 1):
                yield top.joinpath(*parts[:depth]), name
