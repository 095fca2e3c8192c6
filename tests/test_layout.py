"""The rules of the house: who may import whom, what starts fast, what may not be in the tree."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FORBIDDEN = {"pipeline": {"models", "workflows"}, "models": {"pipeline", "workflows"}}


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {name.name.split(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.split(".")[0])
    return found


@pytest.mark.parametrize("package", sorted(FORBIDDEN))
def test_imports_run_one_way(package: str) -> None:
    files = sorted((ROOT / package).rglob("*.py"))
    assert files
    wrong = {str(p.relative_to(ROOT)): bad for p in files if (bad := imports(p) & FORBIDDEN[package])}
    assert not wrong


def test_torchvision_is_not_needed() -> None:
    assert not [
        p for d in ("pipeline", "models", "workflows") for p in (ROOT / d).rglob("*.py") if "torchvision" in imports(p)
    ]


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom workflows.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "print('HEAVY', sorted({m.split('.')[0] for m in sys.modules} & "
        "{'torch', 'lightning', 'rasterio', 'geopandas', 'dask', 'xarray', 'matplotlib', 'pydantic', 'numpy'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert "HEAVY []" in done.stdout
    assert "Commands" in done.stdout
