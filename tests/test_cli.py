"""Bad input gets a sentence: what, where, what was found, what to do. Never a traceback, and the right exit status."""

from __future__ import annotations

from pathlib import Path

import geopandas as gpd
import pytest
import rasterio
import rasterio.shutil
from conftest import CRS, write_job, write_labels, write_scene
from test_run import cli


def said(capfd: pytest.CaptureFixture[str], *arguments: object, status: int = 2) -> str:
    """Run the command line, which must end with this status; return what it said."""
    assert cli(*arguments) == status
    message = capfd.readouterr().err
    assert "Traceback" not in message
    return " ".join(message.split("error: ")[-1].split())


def test_a_missing_raster_names_the_nearest(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    message = said(capfd, "run", folder / "job.yaml", "--set", "imagery.0.path=scnee.tif")
    assert "scnee.tif" in message
    assert "did you mean 'scene.tif'?" in message


def test_missing_labels_name_the_nearest(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    message = said(capfd, "run", folder / "job.yaml", "--set", "labels.path=field.gpkg")
    assert "did you mean 'fields.gpkg'?" in message


def test_an_unknown_key_names_the_nearest(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    message = said(capfd, "check", folder / "job.yaml", "--set", "training.epoch=1")
    assert "training.epoch: unknown key; did you mean 'epochs'?" in message


def test_a_wrong_band_names_those_there_are(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    message = said(capfd, "check", folder / "job.yaml", "--set", "imagery.0.bands={red: 9}")
    assert "red" in message
    assert "9" in message
    message = said(capfd, "check", folder / "job.yaml", "--set", "imagery.0.bands=[green, rde]")
    assert "green, red, nir" in message


def test_a_wrong_field_names_those_there_are(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    message = said(capfd, "check", folder / "job.yaml", "--set", "labels.field=clas")
    assert "did you mean 'class'?" in message


def test_labels_elsewhere_show_both_extents(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    frame = gpd.read_file(folder / "fields.gpkg")
    frame.geometry = frame.geometry.translate(10, 10)
    frame.to_file(folder / "fields.gpkg")
    message = said(capfd, "check", folder / "job.yaml")
    assert message.count("(") >= 4
    assert "499" in message or "500000" in message
    assert "CRS" in message


def test_a_raster_without_crs_is_refused(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with rasterio.open(folder / "scene.tif") as source:
        profile, values = source.profile | {"crs": None}, source.read()
    with rasterio.open(folder / "scene.tif", "w", **profile) as target:
        target.write(values)
    assert "CRS" in said(capfd, "check", folder / "job.yaml")
    assert cli("check", folder / "job.yaml", "--quiet", "--set", f"imagery.0.crs={CRS}") == 0


def test_one_class_only_is_refused(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    frame = gpd.read_file(folder / "fields.gpkg")
    frame[frame["class"] == "water"].to_file(folder / "fields.gpkg")
    message = said(capfd, "check", folder / "job.yaml")
    assert "water" in message


def test_a_class_without_labels_is_named(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    classes = "[{name: water}, {name: forest}, {name: field}, {name: Town, labels: [town]}]"
    assert "Town" in said(capfd, "check", folder / "job.yaml", "--set", f"classes={classes}")


def test_an_empty_validation_fold_is_refused(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    message = said(capfd, "run", folder / "job.yaml", "--set", "folds={k: 0, fractions: [0.9, 0, 0.1]}")
    assert "val" in message
    assert "fold" in message


def test_predict_before_train_names_the_command(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert "landweave train" in said(capfd, "predict", folder / "job.yaml")


def test_a_model_on_other_bands_shows_both_sides(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli("train", folder / "job.yaml", "-q") == 0
    write_scene(folder / "later.tif")
    with rasterio.open(folder / "later.tif", "r+") as raster:
        raster.set_band_description(2, "swir")
    message = said(capfd, "apply", folder / "out" / "model", folder / "later.tif", "-o", folder / "later")
    assert "green, red, nir" in message
    assert "green, swir, nir" in message
    assert "missing red" in message


def test_a_model_on_other_scales_shows_both_sides(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli("train", folder / "job.yaml", "-q") == 0
    write_scene(folder / "later.tif")
    with rasterio.open(folder / "later.tif", "r+") as raster:
        raster.scales = (0.5,) * 3
    message = said(capfd, "apply", folder / "out" / "model", folder / "later.tif", "-o", folder / "later")
    assert "scale 1" in message
    assert "scale 0.5" in message


def test_a_folder_that_is_no_bundle_is_refused(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    message = said(capfd, "apply", folder, folder / "scene.tif", "-o", folder / "later")
    assert "bundle" in message


def test_a_damaged_bundle_is_refused(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli("train", folder / "job.yaml", "-q") == 0
    path = folder / "out" / "model" / "bundle.json"
    path.write_text(path.read_text().replace('"temperature": ', '"temperature": 1'))
    message = said(capfd, "apply", folder / "out" / "model", folder / "scene.tif", "-o", folder / "later")
    assert "checksum" in message


def test_a_truncated_raster_is_named(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    # A cloud-optimised file has its directory first: cut short it opens, reads well at its start, and fails at its end.
    write_scene(folder / "large.tif", side=600)
    rasterio.shutil.copy(folder / "large.tif", folder / "scene.tif", driver="COG", BLOCKSIZE=128, COMPRESS="DEFLATE")
    path = folder / "scene.tif"
    path.write_bytes(path.read_bytes()[:-200_000])
    message = said(capfd, "check", folder / "job.yaml", status=1)
    assert "scene.tif" in message


def test_an_output_that_cannot_be_written_is_named(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (folder / "file").touch()
    message = said(capfd, "run", folder / "job.yaml", "--set", "output=file/out", status=1)
    assert "cannot be written" in message


def test_a_failing_block_is_named_and_the_rest_is_kept(
    folder: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from workflows.maptask import MapTask

    assert cli("train", folder / "job.yaml", "-q") == 0
    compute = MapTask.compute

    def failing(self, block, *rest):
        if block.index == 4:
            raise MemoryError("no room")
        return compute(self, block, *rest)

    monkeypatch.setattr(MapTask, "compute", failing)
    message = said(capfd, "predict", folder / "job.yaml", "--set", "predict.block=32", status=1)
    assert "1 of 9 blocks failed after 3 attempts" in message
    assert not (folder / "out" / "maps" / "classes.tif").exists()
    monkeypatch.undo()
    assert cli("predict", folder / "job.yaml", "--set", "predict.block=32") == 0
    assert "resumed: 8 of 9 blocks are done" in capfd.readouterr().err


def test_init_writes_a_job_that_runs(folder: Path) -> None:
    job = folder / "new.yaml"
    assert (
        cli("init", folder / "scene.tif", "--labels", folder / "fields.gpkg", "--field", "class", "-o", job, "-q") == 0
    )
    text = job.read_text()
    assert "green: 1" in text
    assert "name: forest" in text
    assert "# Passes" in text or "# Most passes" in text
    assert cli("check", job, "-q") == 0
    assert (
        cli("init", folder / "scene.tif", "--labels", folder / "fields.gpkg", "--field", "class", "-o", job, "-q") == 2
    )


def test_a_dry_run_writes_nothing(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli("run", folder / "job.yaml", "--dry-run") == 0
    assert "nothing was written" in capfd.readouterr().err
    assert not (folder / "out").exists()


def test_networks_schema_and_doctor_speak(capfd: pytest.CaptureFixture[str]) -> None:
    assert cli("networks") == cli("schema") == cli("doctor") == 0
    found = capfd.readouterr()
    assert "unet" in found.err
    assert '"properties"' in found.out
    assert "rasterio" in found.err


def test_an_area_limits_the_map(folder: Path) -> None:
    from shapely.geometry import box

    gpd.GeoDataFrame(geometry=[box(500_000, 4_999_040, 500_480, 5_000_000)], crs=CRS).to_file(folder / "area.gpkg")
    assert cli("run", folder / "job.yaml", "-q", "--set", "area=area.gpkg") == 0
    with rasterio.open(folder / "out" / "maps" / "classes.tif") as raster:
        values = raster.read(1)
    assert (values[:, 48:] == 0).all()
    assert (values[10:, :48] != 0).all()


def test_labels_as_points_in_a_csv(folder: Path) -> None:
    frame = gpd.read_file(write_labels(folder / "fields.gpkg")).to_crs("EPSG:4326")
    points = frame.geometry.representative_point()
    frame.assign(lon=points.x, lat=points.y).drop(columns="geometry").to_csv(folder / "points.csv", index=False)
    write_job(folder / "job.yaml", labels={"path": "points.csv", "field": "class"})
    assert cli("run", folder / "job.yaml", "-q") == 0


def test_a_raster_of_labels(folder: Path) -> None:
    import numpy as np
    from conftest import TRANSFORM, cells

    cover = np.kron(cells(96) + 1, np.ones((12, 12), np.uint8)).astype(np.uint8)
    profile = {
        "driver": "GTiff",
        "width": 96,
        "height": 96,
        "count": 1,
        "dtype": "uint8",
        "crs": CRS,
        "transform": TRANSFORM,
    }
    with rasterio.open(folder / "cover.tif", "w", **profile, nodata=0) as raster:
        raster.write(cover, 1)
    write_job(folder / "job.yaml", labels={"path": "cover.tif"}, folds={"k": 0, "size": 120})
    assert cli("run", folder / "job.yaml", "-q") == 0
