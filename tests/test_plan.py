"""A plan keeps to the budget, is the same wherever there is memory, and says what it is made of."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from affine import Affine
from conftest import write_job, write_labels, write_scene
from distributed import LocalCluster
from test_run import cli, digests

from models.network import Network
from models.settings import SaliencySettings
from models.table import build
from pipeline.crew import crew_of
from pipeline.errors import RunError
from pipeline.imagery.cube import Cube
from pipeline.imagery.open import open_cube
from pipeline.settings import ComputeSettings, ImagerySettings
from workflows.choose import plan_of
from workflows.explainers import planned
from workflows.plan import Plan
from workflows.settings import PredictSettings

GIB = 1 << 30
BASE = 300 << 20


@pytest.fixture(autouse=True)
def process(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine of 16 cores and 64 GiB, and a process that takes as much as one that has just begun."""
    monkeypatch.setattr("pipeline.crew.cores", lambda: 16)
    monkeypatch.setattr("pipeline.crew.memory_budget", lambda text: int(text) if text != "auto" else 64 * GIB)
    monkeypatch.setattr("workflows.choose.resident", lambda: BASE)


def cube_of(folder: Path, side: int) -> Cube:
    """Return the cube of a sparse raster of four bands, which takes no disk."""
    path = folder / f"{side}.tif"
    profile: dict[str, Any] = {
        "driver": "GTiff", "width": side, "height": side, "count": 4, "dtype": "uint16", "tiled": True, "sparse_ok": True,
        "blockxsize": 512, "blockysize": 512, "crs": "EPSG:32633", "transform": Affine(10, 0, 0, 0, -10, 0), "nodata": 0,
    }  # fmt: skip
    with rasterio.open(path, "w", **profile):
        pass
    return open_cube([ImagerySettings.model_validate({"path": str(path)})], None, None)[0]


@pytest.fixture(scope="module")
def cubes(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Cube]:
    folder = tmp_path_factory.mktemp("sparse")
    return {side: cube_of(folder, side) for side in (300, 1000, 2048, 50_000)}


@pytest.fixture(scope="module")
def unet() -> Network:
    return build("unet", {}, bands=4, dates=1, classes=8)


def plan(network: Network, cube: Cube, method: str = "", block: Any = "auto", **compute: Any) -> Plan:
    explainers = planned(SaliencySettings.model_validate({"method": method})) if method else ()
    settings = ComputeSettings.model_validate({"memory": "auto"} | compute)
    return plan_of(network, cube, PredictSettings(block=block), settings, explainers, stored=3.0)


@pytest.mark.parametrize("method", ["", "integrated_gradients"])
@pytest.mark.parametrize("budget", [GIB, 4 * GIB])
def test_no_plan_goes_past_the_budget(unet: Network, cubes: dict[int, Cube], method: str, budget: int) -> None:
    found = plan(unet, cubes[50_000], method, memory=str(budget))
    assert found.peak <= budget
    # And it is used: the next larger blocks would be too much.
    larger = {256: 512, 512: 768, 768: 1024, 1024: 1280}[found.blocks.size]
    too_much = replace(found, blocks=replace(found.blocks, size=larger)).peak > 0.9 * budget
    assert too_much or (found.crew.threads, found.blocks.size) == (16, 1024)
    assert found.blocks.size >= 256


def test_with_memory_enough_the_machine_does_not_count(
    unet: Network, cubes: dict[int, Cube], monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = {}
    for side, cube in cubes.items():
        found = set()
        for number in (1, 2, 16):
            monkeypatch.setattr("pipeline.crew.cores", lambda number=number: number)
            found.add(plan(unet, cube).blocks.size)
            found.add(plan(unet, cube, workers=2).blocks.size)
        (sizes[side],) = found
    # Small rasters have work for several tasks; those that are large are cut as large as it pays.
    assert sizes == {300: 300, 1000: 256, 2048: 512, 50_000: 1024}


def test_where_the_halo_is_dear_blocks_stay_large(cubes: dict[int, Cube]) -> None:
    deep = build("unet", {"depth": 5}, bands=4, dates=1, classes=8)
    found = plan(deep, cubes[2048])
    assert found.blocks.halo > 100
    assert found.blocks.size >= 768


def test_a_fuller_last_round_is_not_worth_four_times_as_many_files(tmp_path: Path) -> None:
    # 196 blocks of 1024 px leave tasks idle in the last of 13 rounds of sixteen; 784 of 512 px are 49 full ones.
    pixels = build("mlp", {}, bands=4, dates=1, classes=8)
    assert plan(pixels, cube_of(tmp_path, 14 * 1024)).blocks.size == 1024
    # Where most of a round would be idle, smaller blocks are worth theirs.
    assert plan(pixels, cube_of(tmp_path, 6 * 1024)).blocks.size == 768


def test_workers_share_the_machine_but_not_what_a_job_gives_each(unet: Network, cubes: dict[int, Cube]) -> None:
    alone, four = plan(unet, cubes[50_000]), plan(unet, cubes[50_000], workers=4)
    assert (alone.budget, four.budget) == (64 * GIB, (64 * GIB - BASE) // 4)
    assert (alone.crew.threads, four.crew.threads, four.at_once) == (16, 4, 16)
    assert plan(unet, cubes[50_000], workers=4, memory=str(2 * GIB)).budget == 2 * GIB


def test_a_budget_that_is_too_small_is_refused(unet: Network, cubes: dict[int, Cube]) -> None:
    with pytest.raises(
        RunError, match=r"found \d+, 268 MB for a worker; the smallest blocks, 64 px with 10 px around need"
    ) as e:
        plan(unet, cubes[2048], memory=str(256 << 20))
    needed = re.search(r"give it ([\d.]+) MB", str(e.value))
    assert needed is not None
    assert plan(unet, cubes[2048], memory=str(int(float(needed[1]) * 1.01e6))).blocks.size == 64
    with pytest.raises(RunError, match=r"blocks of predict.block: 2000 px need .* GB .* set predict.block to auto"):
        plan(unet, cubes[50_000], block=2000, memory=str(GIB))


def test_what_was_begun_is_kept_with_fewer_threads_or_refused(unet: Network, cubes: dict[int, Cube]) -> None:
    def resumed(budget: int) -> Plan:
        compute = ComputeSettings(memory=str(budget))
        return plan_of(unet, cubes[50_000], PredictSettings(), compute, begun=1024)

    assert (resumed(16 * GIB).crew.threads, resumed(4 * GIB).crew.threads) == (16, 6)
    assert {resumed(n * GIB).blocks.size for n in (2, 4, 16)} == {1024}
    with pytest.raises(
        RunError, match=r"the blocks of 1024 px that this run began with need .* --overwrite to begin anew"
    ):
        resumed(GIB // 2)


def test_the_peak_is_what_the_formula_says(unet: Network, cubes: dict[int, Cube]) -> None:
    found = plan(unet, cubes[50_000], memory=str(2 * GIB))
    number = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9}
    sizes = [float(n) * number[p] for n, p in re.findall(r"([\d.]+) ([kMG]?)B ", found.formula)]
    threads, side, pixel = (
        int(n) for n in re.findall(r"\+ (\d+) threads? x \((\d+) x \d+ px x (\d+) B", found.formula)[0]
    )
    process, cache, later, gaps = (sizes[i] for i in (0, 1, 2, -1))
    assert process + cache + later + threads * (side**2 * pixel + gaps) == pytest.approx(found.peak, rel=0.02)


def test_bytes_read_count_what_blocks_share(unet: Network, cubes: dict[int, Cube]) -> None:
    found = plan(unet, cubes[1000], block=256)
    seen = np.zeros((1000, 1000), int)
    for block in found.blocks:
        y, x = max(0, block.padded.y), max(0, block.padded.x)
        seen[y : block.padded.bottom, x : block.padded.right] += 1
    assert (found.pixels, found.stored) == (seen.sum(), 8.0)


def test_a_cluster_is_asked_and_need_not_answer(unet: Network, cubes: dict[int, Cube], tmp_path: Path) -> None:
    away = plan(unet, cubes[1000], scheduler=str(tmp_path / "absent.json"))
    said = [str(text) for _, text in away.rows(0, 0)]
    assert any("neither a file nor an address" in text and "planned with 16 threads" in text for text in said)
    assert (away.crew.workers, away.crew.threads) == (1, 16)
    with LocalCluster(
        n_workers=2, threads_per_worker=3, processes=False, dashboard_address=None, protocol="inproc://"
    ) as cluster:
        crew = crew_of(ComputeSettings(scheduler=cluster.scheduler_address))
    assert (crew.place, crew.workers, crew.threads, crew.heard) == ("cluster", 2, 3, "")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("job")
    write_scene(folder / "scene.tif", side=260)
    write_labels(folder / "fields.gpkg", side=260)
    write_job(
        folder / "job.yaml", model={"name": "mlp", "hidden": [8]}, training={"epochs": 1, "track": ["csv"]},
        predict={"layers": ["classes", "confidence"]}, compute={"threads": 1},
    )  # fmt: skip
    assert cli("train", folder / "job.yaml", "-q") == 0
    return folder


def test_a_run_goes_on_with_the_blocks_it_began_with(
    trained: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from workflows.maptask import MapTask

    compute = MapTask.compute
    monkeypatch.setattr(MapTask, "compute", lambda *_: (_ for _ in ()).throw(OSError("the disk is gone")))
    monkeypatch.setattr("workflows.choose._SIZES", (128,))
    monkeypatch.setattr("workflows.choose._SMALL", ())
    assert cli("predict", trained / "job.yaml", "--set", "predict.retries=0") == 1
    monkeypatch.undo()
    (manifest,) = (trained / "out").rglob("manifest.jsonl")
    begun = manifest.read_text()
    assert json.loads(begun.splitlines()[0].partition(" ")[2])["grid"]["block"] == 128
    capfd.readouterr()
    seen: list[int] = []

    def counted(self: MapTask, block: Any, *rest: Any) -> Any:
        seen.append(block.core.height)
        if len(seen) == 3:
            raise torch.OutOfMemoryError("once")
        return compute(self, block, *rest)

    monkeypatch.setattr(MapTask, "compute", counted)
    assert cli("predict", trained / "job.yaml") == 0
    heard = capfd.readouterr().err
    assert "9 blocks of 128 px" in heard
    assert set(seen) == {128, 64}
    assert "memory ran out for 1 of 9 blocks" in heard
    before = digests(trained / "out")
    monkeypatch.setattr(MapTask, "compute", compute)
    shutil.rmtree(trained / "out/maps")
    assert cli("predict", trained / "job.yaml") == 0
    assert "1 block of 260 px" in capfd.readouterr().err
    assert digests(trained / "out")["classes.tif"] == before["classes.tif"]


def test_check_and_dry_run_print_the_plan(trained: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for command in (("check",), ("run", "--dry-run")):
        assert cli(*command, trained / "job.yaml") == 0
        said = " ".join(capfd.readouterr().err.split())
        assert re.search(r"blocks 1 of 260 px, read with 0 px around", said)
        assert re.search(r"bytes read 406 kB uncompressed, 0% of it again for halos; [\d.]+ kB in files", said)
        assert "workers this process, 1 thread" in said
        assert re.search(r"memory about [\d.]+ MB at most per worker, of [\d.]+ GB = [\d.]+ MB the process \+", said)
        assert re.search(r"(less than a second|about [^(]+) \(\d+ % reading, \d+ % computing, \d+ % writing\)", said)
    assert cli("apply", trained / "out/model", trained / "scene.tif", "-o", trained / "far", "--dry-run") == 0
    assert "= " in capfd.readouterr().err
    assert not (trained / "far").exists()
