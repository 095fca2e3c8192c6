"""The limit of a container, wherever it stands."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.limits import memory_limit

GIB = 1 << 30
NONE = "9223372036854771712"


@pytest.mark.parametrize(
    ("groups", "files", "expected"),
    [
        ("0::/", {}, 8 * GIB),
        ("0::/", {"memory.max": "max"}, 8 * GIB),
        # A container of its own: its group is the uppermost one that it sees.
        ("0::/", {"memory.max": str(2 * GIB)}, 2 * GIB),
        ("0::/", {"memory.max": str(20 * GIB)}, 8 * GIB),
        # Nested: the least on the way up counts, wherever it stands.
        ("0::/a.slice/job", {"a.slice/memory.max": str(GIB), "a.slice/job/memory.max": str(3 * GIB)}, GIB),
        ("0::/a.slice/job", {"a.slice/memory.max": "max", "a.slice/job/memory.max": str(3 * GIB)}, 3 * GIB),
        ("0::/a.slice/job", {"b.slice/memory.max": str(GIB)}, 8 * GIB),
        # A path that only the host has, or that leads out of what is seen.
        ("0::/../other", {"memory.max": str(5 * GIB), "../../outside/memory.max": str(GIB)}, 5 * GIB),
        # Version 1, and both side by side.
        ("4:memory:/docker/x", {"memory/memory.limit_in_bytes": str(GIB)}, GIB),
        ("4:memory:/x", {"memory/memory.limit_in_bytes": NONE, "memory/x/memory.limit_in_bytes": str(GIB)}, GIB),
        ("9:cpu,memory:/x\n0::/", {"memory/x/memory.limit_in_bytes": str(GIB)}, GIB),
        ("5:cpu:/x\n0::/", {"cpu/x/memory.limit_in_bytes": str(GIB)}, 8 * GIB),
        ("0::/a\n4:memory:/", {"unified/a/memory.max": str(2 * GIB), "memory/memory.limit_in_bytes": NONE}, 2 * GIB),
        ("nothing of this kind", {}, 8 * GIB),
    ],
)
def test_the_least_limit_counts(tmp_path: Path, groups: str, files: dict[str, str], expected: int) -> None:
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text(groups + "\n")
    for name, text in files.items():
        path = tmp_path / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    assert memory_limit(8 * GIB, tmp_path) == expected


def test_a_machine_without_any_of_it(tmp_path: Path) -> None:
    assert memory_limit(8 * GIB, tmp_path) == 8 * GIB
