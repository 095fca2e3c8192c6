"""The whole job on a small scene, through the command line, and what happens when it is disturbed."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import rasterio
from conftest import write_job, write_labels, write_scene
from kill import begin, partial

from workflows.cli import main

LAYERS = "predict.layers=[classes, confidence, probabilities, saliency]"


def cli(*arguments: object) -> int:
    """Run the command line in this process; return its exit status."""
    try:
        main([str(a) for a in arguments])
    except SystemExit as done:
        return int(done.code or 0)
    return 0


def digests(folder: Path) -> dict[str, str]:
    return {
        p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted((folder / "maps").iterdir()) if p.is_file()
    }


MODELS = [
    "{name: mlp, hidden: [8]}",
    "{name: unet, width: 4, depth: 1}",
    "{name: spectral, components: 2, filters: [4], width: 8, hidden: []}",
]


@pytest.mark.parametrize("model", MODELS)
def test_from_raster_and_polygons_to_maps(folder: Path, model: str) -> None:
    assert cli("run", folder / "job.yaml", "--quiet", "--set", f"model={model}", "--set", LAYERS) == 0
    out = folder / "out"
    accuracy = json.loads((out / "report" / "accuracy.json").read_text())
    assert accuracy["n"] == sum(map(sum, accuracy["confusion"])) > 0
    assert [c["name"] for c in accuracy["classes"]] == ["field", "forest", "water"]
    with rasterio.open(out / "maps" / "classes.tif") as raster, rasterio.open(folder / "scene.tif") as scene:
        assert (raster.shape, raster.transform, raster.crs) == (scene.shape, scene.transform, scene.crs)
        values = raster.read(1)
        assert (values[:5, :5] == raster.nodata).all()
        assert (values == raster.nodata).sum() == 25
    for name in ("confidence", "probabilities", "saliency", "saliency_bands", "saliency_dates"):
        assert (out / "maps" / f"{name}.tif").is_file()
    assert (out / "report" / "index.html").is_file()
    assert (out / "model" / "weights.safetensors").is_file()
    assert json.loads((out / "run.json").read_text())["inputs"]["imagery"][0]["sha256"]
    assert "epochs: 3" in (out / "job.yaml").read_text()


def test_a_second_run_does_nothing_and_a_changed_job_is_refused(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert cli("run", folder / "job.yaml") == 0
    before = digests(folder / "out")
    capfd.readouterr()
    assert cli("run", folder / "job.yaml") == 0
    assert capfd.readouterr().err.count("up to date") == 4
    assert cli("run", folder / "job.yaml", "--set", "training.epochs=4") == 2
    assert "training.epochs: 3 -> 4" in capfd.readouterr().err
    assert digests(folder / "out") == before
    assert cli("run", folder / "job.yaml", "--set", "training.epochs=4", "--overwrite", "--quiet") == 0
    assert digests(folder / "out") != before


def test_the_same_job_gives_the_same_map_on_any_number_of_workers(folder: Path) -> None:
    options = ["-q", "--set", "predict.block=32", "--set", "model={name: unet, width: 4, depth: 1}"]
    runs = []
    for i, compute in enumerate(("{threads: 1}", "{workers: 2}")):
        assert cli("run", folder / "job.yaml", *options, "--set", f"output=out{i}", "--set", f"compute={compute}") == 0
        layers = []
        for name in ("classes", "saliency"):
            with rasterio.open(folder / f"out{i}" / "maps" / f"{name}.tif") as raster:
                layers.append(raster.read())
        bundle = json.loads((folder / f"out{i}" / "model" / "bundle.json").read_text())
        bundle.pop("created")
        runs.append((*layers, bundle))
    for one, other in zip(runs[0][:2], runs[1][:2], strict=True):
        np.testing.assert_array_equal(one, other)
    assert runs[0][2] == runs[1][2]
    # One and the same model: the very bytes. A cluster, and one whose workers die, is in test_cluster.py.
    before = digests(folder / "out1")
    shutil.rmtree(folder / "out1" / "maps")
    assert cli("predict", folder / "job.yaml", *options, "--set", "output=out1", "--set", "compute={threads: 3}") == 0
    assert digests(folder / "out1") == before


def test_block_size_changes_nothing(folder: Path) -> None:
    found = []
    write_job(folder / "job.yaml", model={"name": "unet", "width": 4, "depth": 2}, folds={"k": 0, "buffer": 4})
    assert cli("run", folder / "job.yaml", "-q", "--set", LAYERS) == 0
    for block in (16, 64, 96):
        assert cli("predict", folder / "job.yaml", "-q", "--overwrite",
                   "--set", LAYERS, "--set", f"predict.block={block}") == 0  # fmt: skip
        layers = {}
        for name in ("classes", "probabilities", "saliency", "saliency_bands"):
            with rasterio.open(folder / "out" / "maps" / f"{name}.tif") as raster:
                layers[name] = raster.read().astype(float)
        found.append(layers)
    for other in found[1:]:
        np.testing.assert_array_equal(other["classes"], found[0]["classes"])
        np.testing.assert_allclose(other["probabilities"], found[0]["probabilities"], atol=1)
        for name in ("saliency", "saliency_bands"):
            np.testing.assert_allclose(other[name], found[0][name], atol=1e-5)


def count_parts(folder: Path) -> int:
    """Count whole parts; unlike a glob, walking does not mind folders that are removed meanwhile."""
    names = (name for _, _, files in os.walk(folder / "out" / ".landweave" / "parts") for name in files)
    return sum(name.endswith(".tif") and not name.startswith(".") for name in names)


def test_killed_at_any_moment_it_goes_on_to_the_same_map(folder: Path) -> None:
    write_scene(folder / "scene.tif", side=112)
    write_labels(folder / "fields.gpkg", side=112)
    options = [
        "--set",
        "predict.block=16",
        "--set",
        "model={name: unet, width: 4, depth: 1}",
        "--set",
        "compute={threads: 1}",
    ]
    assert cli("train", folder / "job.yaml", *options, "-q") == 0
    predict = ["predict", str(folder / "job.yaml"), "--quiet", *options]
    maps = folder / "out" / "maps"
    killed = 0
    rng = np.random.default_rng(0)
    for _ in range(2):
        process = begin(predict)
        deadline = time.monotonic() + 60
        before = count_parts(folder)
        # Killed a while after the blocks have begun, so that each time some are done and some are not.
        while process.poll() is None and time.monotonic() < deadline and count_parts(folder) < before + 30:
            time.sleep(0.01)
        time.sleep(float(rng.uniform(0, 0.3)))
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            killed += 1
        process.communicate()
        assert partial(folder / "out") == []
    assert killed
    process = begin(predict)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    disturbed = digests(folder / "out")
    shutil.rmtree(maps)
    assert cli("predict", folder / "job.yaml", *options, "-q") == 0
    assert digests(folder / "out") == disturbed


def test_an_output_folder_in_use_is_named(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from workflows.output import Output

    pid = os.fork()
    if not pid:
        with Output(folder / "out").held():
            (folder / "held").touch()
            time.sleep(30)
        os._exit(0)
    try:
        while not (folder / "held").exists():
            time.sleep(0.01)
        assert cli("run", folder / "job.yaml") == 2
        message = capfd.readouterr().err
        assert "is in use by another run" in message
        assert f"process {pid} on" in message
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    # The lock died with its holder: nothing has to be removed by hand.
    assert cli("prepare", folder / "job.yaml", "-q") == 0


def test_apply_maps_another_scene(folder: Path) -> None:
    assert cli("run", folder / "job.yaml", "-q") == 0
    write_scene(folder / "later.tif", side=60, seed=7)
    assert cli("apply", folder / "out" / "model", folder / "later.tif", "-o", folder / "later", "-q") == 0
    with rasterio.open(folder / "later" / "maps" / "classes.tif") as raster:
        assert raster.shape == (60, 60)


def test_few_labels_are_cross_validated(folder: Path) -> None:
    write_labels(folder / "fields.gpkg", every=5)
    write_job(folder / "job.yaml", folds={})
    assert cli("run", folder / "job.yaml", "-q") == 0
    accuracy = json.loads((folder / "out" / "report" / "accuracy.json").read_text())
    assert len(accuracy["rounds"]) == 10
    labelled = sum(c["support"] for c in accuracy["classes"])
    assert accuracy["n"] == labelled == sum(r["network"]["n"] for r in accuracy["rounds"])
