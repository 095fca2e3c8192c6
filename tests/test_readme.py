"""What the README says is true: its commands run, in its order, as they stand there."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import geopandas as gpd
import pytest
import rasterio
import shapely
from conftest import write_chips, write_labels, write_plots, write_scene, write_season
from test_run import cli

from workflows.load import load_job

ROOT = Path(__file__).parent.parent
EXAMPLES = sorted((ROOT / "workflows" / "examples").glob("*.yaml"))
README = (ROOT / "README.md").read_text(encoding="utf-8")


def commands() -> list[list[str]]:
    """Return the commands in the README's shell blocks."""
    blocks = re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
    return [shlex.split(line) for block in blocks for line in block.splitlines() if line.strip()]


def run_by_readme() -> set[str]:
    """Return the names of the example jobs that the README's commands run."""
    return {Path(c[2]).stem for c in commands() if c[:2] == ["landweave", "run"]} & {e.stem for e in EXAMPLES}


def test_the_two_commands_are_targets_that_set_up_by_themselves() -> None:
    assert [c for c in commands() if c[0] == "make"] == [["make", "demo"], ["make", "test"]]
    for target, last in (("demo", "landweave demo demo"), ("test", "python -m pytest")):
        # By itself, also when the tests are run by make: a make inside another says where it is.
        alone = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS"))}
        command = ["make", "--dry-run", "--always-make", target]
        done = subprocess.run(command, cwd=ROOT, env=alone, capture_output=True, text=True, check=True)
        assert "-m venv" in done.stdout
        assert "--requirement requirements.lock" in done.stdout
        assert last in done.stdout.strip().splitlines()[-1]


def test_every_landweave_command_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_scene(Path("scene.tif"))
    write_scene(Path("later.tif"), seed=1)
    write_labels(Path("fields.gpkg"), every=2)
    write_season(Path())
    write_plots(Path("plots.csv"), Path("scene.tif"))
    write_chips(Path("chips"))
    with rasterio.open("scene.tif") as scene:
        at = shapely.points([scene.xy(20, 30), scene.xy(70, 60)])
    gpd.GeoDataFrame(geometry=at, crs=scene.crs).to_file("points.gpkg")
    for example in EXAMPLES:
        shutil.copy(example, ".")
    found = [c for c in commands() if c[0] == "landweave"]
    assert {c[1] for c in found} == {
        "map", "init", "check", "run", "explain", "apply", "extract", "classify", "bench", "tune"
    }  # fmt: skip
    for command in found:
        # The README's own words; only shorter trainings, for this is a test of words and not of networks.
        short = ["--set", "training.epochs=1"] if command[1] in ("map", "run", "explain", "bench", "tune") else []
        # Few labels are cross-validated, which is five trainings; and the network is as small as can be.
        if short and {"scene.tif", "job.yaml"} & set(command):
            short += ["--set", "folds.k=0"]
            short += [] if "model=" in " ".join(command) else ["--set", "model={name: mlp, hidden: [8]}"]
        short += {"bench": ["--seeds", "1"], "tune": ["--set", "tune.trials=2"]}.get(command[1], [])
        # Each patch is a file.
        short += ["--set", "chips={max_per_class: 20, samples: 50}"] if "few_labels.yaml" in command else []
        short += ["--set", "saliency.method=gradient"] if "--sanity" in command else []
        extra = ["--overwrite"] if command[1] == "run" else []
        assert cli(*command[1:], *short, *extra, *(["-q"] if command[1] != "x" else [])) == 0, command
    for name in ("out", "later", "mapped", "window"):
        assert Path(name, "maps", "classes.tif").is_file()
    assert len(run_by_readme()) > 4
    for name in ("job", *run_by_readme()):
        assert Path("runs", name, "report", "index.html").is_file()
        assert list(Path("runs", name).glob("maps/**/*.tif")) or name in ("series_table", "chip_folders")


def test_the_job_files_in_the_readme_are_valid(tmp_path: Path) -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)
    for block, network in zip(blocks, ("lstm", "unet"), strict=True):
        (tmp_path / "job.yaml").write_text(block)
        assert load_job(tmp_path / "job.yaml").model.name == network


def test_every_file_the_readme_links_to_is_there() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / target).exists(), target


def test_every_pinned_version_is_exact() -> None:
    lines = [line for line in (ROOT / "requirements.lock").read_text().splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.]+", line) for line in lines)
    assert "torch==2.13.0" in lines


@pytest.mark.parametrize("example", [e for e in EXAMPLES if e.stem not in run_by_readme()], ids=lambda p: p.stem)
def test_every_other_example_job_runs(example: Path, tmp_path: Path) -> None:
    import numpy as np

    scene = write_scene(tmp_path / "scene.tif")
    write_labels(tmp_path / "fields.gpkg")
    (tmp_path / "bands").mkdir()
    with rasterio.open(scene) as source:
        for i in (1, 2, 3):
            profile = source.profile | {"count": 1}
            with rasterio.open(tmp_path / "bands" / f"scene_B{i}.tif", "w", **profile) as band:
                band.write(source.read(i), 1)
        mask = np.zeros(source.shape, np.uint16)
        mask[90:, 90:] = 9
        with rasterio.open(tmp_path / "mask.tif", "w", **(source.profile | {"count": 1, "nodata": None})) as target:
            target.write(mask, 1)
    write_season(tmp_path)
    write_plots(tmp_path / "plots.csv", scene)
    shutil.copy(example, tmp_path / "job.yaml")
    options = ["-q", "--set", "training.epochs=2", "--set", "output=out"]
    assert cli("run", tmp_path / "job.yaml", *options) == 0
    assert list((tmp_path / "out").glob("maps/**/classes.tif"))
    assert (tmp_path / "out" / "report" / "index.html").is_file()


def test_the_demo_runs_on_a_small_scene(tmp_path: Path) -> None:
    options = ["--side", 256, "-q", "--set", "training.epochs=2", "--set", "predict.layers=[classes]"]
    assert cli("demo", tmp_path / "demo", *options) == 0
    assert (tmp_path / "demo" / "out" / "report" / "classes.png").is_file()
    # Given again it makes the same scene, finds everything up to date, and writes the same map.
    before = (tmp_path / "demo" / "out" / "maps" / "classes.tif").stat().st_mtime_ns
    assert cli("demo", tmp_path / "demo", *options) == 0
    assert (tmp_path / "demo" / "out" / "maps" / "classes.tif").stat().st_mtime_ns == before
