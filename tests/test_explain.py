"""Explaining a finished map: its layers, exact however it is cut, and nothing lost or left over."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import rasterio
from conftest import write_job, write_labels, write_scene
from shapely import box
from test_run import cli, digests

ALL = (
    "gradient", "gradient_input", "smoothgrad", "integrated_gradients", "occlusion_band", "occlusion_date", "occlusion_patch"
)  # fmt: skip
QUICK = {"samples": 2, "steps": 3, "patch": 5, "step": 3}


@pytest.fixture(scope="module")
def mapped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished map that nobody has explained."""
    folder = tmp_path_factory.mktemp("mapped")
    write_scene(folder / "scene.tif")
    write_labels(folder / "fields.gpkg")
    model = {"name": "unet", "width": 2, "depth": 1}
    write_job(folder / "job.yaml", model=model, predict={"layers": ["classes"]}, saliency=QUICK, training={"epochs": 2})
    assert cli("run", folder / "job.yaml", "-q") == 0
    return folder


@pytest.fixture
def folder(mapped: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(mapped, tmp_path / "job"))


def _options(settings: tuple[str, ...]) -> list[str]:
    return [part for s in settings for part in (["--set", s] if "=" in s else [s])]


def explain(folder: Path, *settings: str) -> int:
    options = _options(settings)
    return cli("explain", folder / "job.yaml", *options)


def read(folder: Path, name: str) -> np.ndarray[Any, Any]:
    with rasterio.open(folder / "out" / "maps" / f"{name}.tif") as raster:
        return np.asarray(raster.read())


def tags(folder: Path, name: str) -> dict[str, str]:
    with rasterio.open(folder / "out" / "maps" / f"{name}.tif") as raster:
        return dict(raster.tags())


def layers(folder: Path) -> set[str]:
    return {p.stem for p in (folder / "out" / "maps").glob("*.tif")}


def test_a_finished_map_is_explained_and_left_alone(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    before = digests(folder / "out")
    assert explain(folder) == 0
    assert "gradient: 1 pass forward and backward a block" in capfd.readouterr().err
    after = digests(folder / "out")
    assert all(after[name] == value for name, value in before.items() if name != "item.json")
    assert layers(folder) == {"classes", "saliency", "saliency_bands", "saliency_dates", "dominant_band"}
    assert layers(folder) == {
        k for k in json.loads((folder / "out/maps/item.json").read_text())["assets"] if "." not in k
    }
    assert explain(folder) == 0
    assert "up to date" in capfd.readouterr().err
    assert digests(folder / "out") == after
    # A run that wants both finds both.
    assert cli("predict", folder / "job.yaml", "--set", "predict.layers=[classes, saliency]") == 0
    assert "up to date" in capfd.readouterr().err
    assert digests(folder / "out") == after


def test_every_method_is_the_same_however_the_map_is_cut(folder: Path) -> None:
    found = []
    for block in (40, 96):
        methods = f"saliency.method=[{', '.join(ALL)}]"
        assert explain(folder, "-q", "--overwrite", methods, f"predict.block={block}") == 0
        names = sorted(n for n in layers(folder) if n.startswith("saliency"))
        found.append({name: read(folder, name) for name in names})
    assert len(found[0]) == len(ALL) + 5 + 5  # all by pixel, all but occlusions of other things by band and by date
    for name, values in found[0].items():
        assert np.nanstd(values) > 0, name
        np.testing.assert_allclose(values, found[1][name], atol=1e-5, err_msg=name)


def test_a_layer_says_what_it_is(folder: Path) -> None:
    assert explain(folder, "-q", "saliency.method=[occlusion_band, smoothgrad]", "saliency.target=water") == 0
    assert layers(folder) == {
        "classes", "saliency", "saliency_bands", "dominant_band", "saliency_smoothgrad", "saliency_smoothgrad_bands",
        "saliency_smoothgrad_dates", "dominant_band_smoothgrad",
    }  # fmt: skip
    first, second = tags(folder, "saliency_bands"), tags(folder, "saliency_smoothgrad")
    assert (first["method"], first["target"], first["signed"]) == ("occlusion_band", "water", "yes")
    assert (first["units"], first["meaning"]) == ("probability", "what decided this pixel: the fall of its probability")
    assert (second["method"], second["signed"]) == ("smoothgrad", "no")
    assert second["meaning"].startswith("what moves the map around here")
    assert second["units"] == "score per standard deviation of the band"
    assert json.loads(second["settings"]) == {"samples": 2, "noise": 0.15, "seed": 0}
    bands, dominant = read(folder, "saliency_bands"), read(folder, "dominant_band")[0]
    there = np.isfinite(bands[0])
    assert ((dominant == 0) == (~there | (bands == 0).all(0))).all()
    assert (dominant[dominant > 0] == np.abs(np.nan_to_num(bands)).argmax(0)[dominant > 0] + 1).all()
    styled = (folder / "out/maps/dominant_band.qml").read_text()
    assert all(f'label="{name}"' in styled for name in ("green", "red", "nir"))
    # The colours of a signed layer have their middle at zero.
    with rasterio.open(folder / "out/maps/saliency_bands.tif") as raster:
        assert raster.descriptions == ("green", "red", "nir")
    shown = (folder / "out/maps/saliency_bands.qml").read_text()
    low, high = (float(shown.split(f'{name}="')[1].split('"')[0]) for name in ("minimumValue", "maximumValue"))
    assert low == -high < 0


def test_targets_differ(folder: Path) -> None:
    found = {}
    for target in ("winner", "margin", "forest"):
        assert explain(folder, "-q", "--overwrite", f"saliency.target={target}", "saliency.per=[pixel]") == 0
        found[target] = np.nan_to_num(read(folder, "saliency"))
        assert tags(folder, "saliency")["target"] == target
    assert layers(folder) == {"classes", "saliency"}
    assert not np.allclose(found["winner"], found["margin"])
    assert not np.allclose(found["winner"], found["forest"])


def test_only_an_area(folder: Path, tmp_path: Path) -> None:
    whole = Path(shutil.copytree(folder, tmp_path / "whole"))
    assert explain(whole, "-q", "predict.block=16") == 0
    with rasterio.open(folder / "scene.tif") as scene:
        left, top, pixel, crs = scene.bounds.left, scene.bounds.top, scene.res[0], scene.crs
    inside = box(left + 20 * pixel, top - 50 * pixel, left + 41 * pixel, top - 30 * pixel)
    gpd.GeoDataFrame(geometry=[inside], crs=crs).to_crs(4326).to_file(tmp_path / "here.gpkg")
    assert explain(folder, "-q", "predict.block=16", "--area", str(tmp_path / "here.gpkg")) == 0
    for name in ("saliency_bands", "dominant_band"):
        part, all_ = read(folder, name), read(whole, name)
        np.testing.assert_array_equal(part[:, 30:50, 20:41], all_[:, 30:50, 20:41])
        there = part != 0 if name == "dominant_band" else np.isfinite(part)
        there[:, 30:50, 20:41] = False
        assert not there.any()
    # What is there is not of the whole map.
    assert explain(folder, "-q") == 2


def test_what_was_done_before_a_fault_is_kept(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from workflows.maptask import MapTask

    undisturbed = Path(shutil.copytree(folder, folder.parent / "other"))
    assert explain(undisturbed, "-q", "predict.block=32") == 0
    compute = MapTask.compute

    def failing(self: MapTask, block: Any, *rest: Any) -> Any:
        if block.index == 4:
            raise OSError("the disk is gone")
        return compute(self, block, *rest)

    options = ("predict.block=32", "predict.retries=0")
    with monkeypatch.context() as patched:
        patched.setattr(MapTask, "compute", failing)
        assert explain(folder, *options) == 1
    assert "1 of 9 blocks failed" in capfd.readouterr().err
    assert layers(folder) == {"classes"}
    assert explain(folder, *options) == 0
    assert "resumed: 8 of 9 blocks" in capfd.readouterr().err
    assert {n: d for n, d in digests(folder / "out").items() if n != "item.json"} == {
        n: d for n, d in digests(undisturbed / "out").items() if n != "item.json"
    }
    assert not list((folder / "out/.landweave").glob("*parts*"))


def test_other_settings_are_refused_and_their_layers_do_not_linger(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert explain(folder, "-q") == 0
    assert explain(folder, "saliency.method=occlusion_date") == 2
    assert "saliency.methods" in capfd.readouterr().err
    assert explain(folder, "-q", "--overwrite", "saliency.method=occlusion_date") == 0
    assert layers(folder) == {"classes", "saliency", "saliency_dates"}
    # The map of another model is not explained by it.
    assert cli("run", folder / "job.yaml", "--set", "training.seed=5", "--overwrite") == 0
    assert "explanation is removed" in capfd.readouterr().err
    assert layers(folder) == {"classes"}
    assert "saliency" not in json.loads((folder / "out/maps/item.json").read_text())["assets"]


def test_another_model_needs_its_own_map_first(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli("train", folder / "job.yaml", "-q", "--set", "training.seed=5", "--overwrite") == 0
    assert explain(folder, "training.seed=5") == 2
    assert "made from other inputs" in capfd.readouterr().err
    shutil.rmtree(folder / "out/maps")
    (folder / "out/.landweave/predict.json").unlink()
    assert explain(folder, "training.seed=5") == 2
    assert "holds no finished map yet; `landweave predict`" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (
            "saliency.target=watter",
            "there is no class 'watter'; did you mean 'water'? Allowed are winner, margin, field",
        ),
        ("saliency.baseline={nirr: 1}", "there is no band 'nirr'; did you mean 'nir'? Allowed are green, red, nir"),
        ("saliency={method: occlusion_band, per: [date]}", "none of which occlusion_band gives; it gives pixel, band"),
        ("saliency.method=gradcam", "gradcam cannot be exact on a map"),
        ("saliency={patch: 3, step: 5}", "pixels between would never be covered"),
    ],
)
def test_a_wrong_setting_is_named(folder: Path, setting: str, message: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert explain(folder, setting) == 2
    assert message in capfd.readouterr().err
    # Before anything is trained for it.
    assert cli("run", folder / "job.yaml", "--set", setting, "--set", "predict.layers=auto", "--set", "output=new") == 2
    assert message in capfd.readouterr().err
    assert not (folder / "new" / "chips.zarr").exists()


def test_a_place_without_imagery_is_no_area(folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    gpd.GeoDataFrame(geometry=[box(0, 0, 1, 1)], crs=4326).to_file(tmp_path / "far.gpkg")
    assert explain(folder, "--area", str(tmp_path / "far.gpkg")) == 2
    assert "lies outside the grid" in capfd.readouterr().err
    assert explain(folder, "--area", str(tmp_path / "none.gpkg")) == 2
    assert "cannot be read" in capfd.readouterr().err
