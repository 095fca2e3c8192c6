"""Labels that hold for a year, in jobs of other networks and other steps, and what a check says of them."""

from __future__ import annotations

import json
from pathlib import Path

import geopandas as gpd
import pytest
from seasonal import FOLDERS, YEARS, make, right, write_job, write_year
from test_run import cli


@pytest.fixture
def seasons(tmp_path: Path) -> Path:
    """A folder with images of two years, fields that hold for one each, and `job.yaml`."""
    return make(tmp_path)


def test_gaps_are_filled_in_each_year(seasons: Path) -> None:
    write_job(seasons / "job.yaml", temporal={"every": 30, "fill": "linear"}, model={"name": "mlp", "hidden": [16]})
    assert cli("train", seasons / "job.yaml", "-q") == 0
    assert cli("predict", seasons / "job.yaml", "-q") == 0
    for year, name in enumerate(FOLDERS):
        assert right(seasons / "out" / "maps" / name / "classes.tif", year) > 0.9
    bundle = json.loads((seasons / "out" / "model" / "bundle.json").read_text())
    assert bundle["time"] == list(range(0, 361, 30))
    assert bundle["dates"][0] == YEARS[1][0]


def test_a_network_that_looks_around_is_scored_as_it_maps(seasons: Path) -> None:
    model, training = {"name": "unet", "width": 4, "depth": 1}, {"epochs": 3, "track": ["csv"]}
    predict = {"periods": "labels", "layers": ["classes"], "block": 16}
    write_job(seasons / "job.yaml", model=model, training=training, predict=predict, folds={"k": 0, "buffer": 1})
    for stage in ("train", "predict", "evaluate"):
        assert cli(stage, seasons / "job.yaml", "-q") == 0
    accuracy = json.loads((seasons / "out" / "report" / "accuracy.json").read_text())
    (note,) = (n for n in accuracy["notes"] if "test pixels read back" in n)
    same, _, total, *_ = note.split()
    assert same == total == str(accuracy["n"])


def test_steps_between_images_make_no_image(seasons: Path, capfd: pytest.CaptureFixture[str]) -> None:
    # Steps go on from the first image to the last; a field that holds while there is no image has nothing to show.
    write_year(seasons / "images", 0, (1000,))
    fields = gpd.read_file(seasons / "fields.gpkg")
    fields.loc[3, ["from", "to"]] = ["2021-09-01", "2022-04-30"]
    # A season shorter than a step has an image, and none of the steps of the whole.
    fields.loc[30, ["from", "to"]] = ["2020-12-20", "2020-12-30"]
    fields.to_file(seasons / "fields.gpkg")
    write_job(seasons / "job.yaml", temporal={"every": 60, "fill": "linear"})
    assert cli("check", seasons / "job.yaml") == 0
    text = " ".join(capfd.readouterr().err.split())
    assert "1 of 50 labels hold for periods without any image and are left out" in text
    assert "labels hold for 3 periods" in text


def test_parts_of_several_maps_do_not_mix(tmp_path: Path) -> None:
    from workflows.output import Output

    places = [Output(tmp_path, name) for name in ("", *FOLDERS)]
    for a in places:
        assert all(b is a or not b.parts("predict").is_relative_to(a.parts("predict")) for b in places)


def test_check_says_what_will_be_mapped(seasons: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli("check", seasons / "job.yaml") == 0
    text = " ".join(capfd.readouterr().err.split())
    assert "2: 2019-09-01 to 2020-08-31; 2020-09-01 to 2021-08-31" in text
    assert "periods have 6 to 7 dates; masked dates follow the shorter ones" in text
