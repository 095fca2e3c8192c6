"""Print what landweave needs to run, from pyproject.toml here: the lock also pins the tools of its tests."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path


def dependencies(extras: list[str]) -> list[str]:
    """Return the requirements of the project and of its ``extras``."""
    project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
    optional = project["optional-dependencies"]
    if unknown := sorted(set(extras) - set(optional)):
        sys.exit(f"EXTRAS: pyproject.toml has no extra {', '.join(unknown)}; it has {', '.join(sorted(optional))}")
    return project["dependencies"] + [name for extra in extras for name in optional[extra]]


if __name__ == "__main__":
    sys.stdout.write("\n".join(dependencies(sys.argv[1:])) + "\n")
