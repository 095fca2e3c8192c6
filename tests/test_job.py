from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from conftest import write_job
from pydantic import BaseModel

from pipeline.errors import JobError
from workflows.faults import model_in
from workflows.job import Job
from workflows.jobtext import commented, reference, schema
from workflows.load import load_job

ROOT = Path(__file__).parent.parent


def test_defaults_are_written_out(tmp_path: Path) -> None:
    job = load_job(write_job(tmp_path / "sinop.yaml"))
    dumped = yaml.safe_load(job.to_yaml())
    assert job.name == "sinop"
    assert dumped["training"]["batch_size"] == job.training.batch_size
    assert dumped["model"] == {"name": "mlp", "pretrained": None, **job.model.settings}
    assert dumped["predict"]["layers"] == ["classes", "confidence", "saliency"]


def test_the_resolved_job_loads_again_unchanged(tmp_path: Path) -> None:
    job = load_job(write_job(tmp_path / "a.yaml"))
    again = tmp_path / "out.yaml"
    again.write_text(job.to_yaml())
    assert load_job(again) == job


def test_paths_are_relative_to_the_job_file(tmp_path: Path) -> None:
    job = load_job(write_job(tmp_path / "a.yaml", imagery=[{"path": ["b.tif", "/c.tif"]}], area="../aoi.gpkg"))
    assert job.imagery[0].path == [str(tmp_path / "b.tif"), "/c.tif"]
    assert job.area == str(tmp_path / "../aoi.gpkg")
    assert job.folder == tmp_path / "out"


def test_set_overrides_any_field(tmp_path: Path) -> None:
    path = write_job(tmp_path / "a.yaml")
    job = load_job(path, ["training.epochs=7", "imagery.0.scale=0.5", "predict.layers=[classes]", "folds.k=3"])
    assert (job.training.epochs, job.imagery[0].scale, job.predict.layers, job.folds.k) == (7, 0.5, ["classes"], 3)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.epochs", "expected KEY=VALUE"),
        ("training.epochs.x=1", "holds the value 3, which has no parts"),
        ("imagery.5.scale=1", "'5' must be a number from 0 to 0"),
        ("training.epochs=[", "not valid YAML"),
        ("training.epoch=5", "training.epoch: unknown key; did you mean 'epochs'?"),
        ("training.optimizer.lr=fast", "training.optimizer.lr: Input should be a valid number"),
        ("model.widht=3", "model.widht: unknown key"),
        ("model.name=unett", "did you mean 'unet'?"),
        ("predict.layers=[clases]", "predict.layers.0: found 'clases'; did you mean 'classes'? Allowed: classes, "),
        ("training.optimizer.name=adamm", "training.optimizer.name: found 'adamm'; did you mean 'adam'?"),
        ("training.precision=128", "training.precision: found 128. Allowed: auto, 32, bf16, 16"),
        (
            "labels.path=null",
            "labels: give `path` (features or a raster on imagery), `series` (a table) or `chips` (a folder), found none of them",
        ),
        (
            "labels.series=a.csv",
            "labels: give `path` (features or a raster on imagery), `series` (a table) or `chips` (a folder), found path",
        ),
        ("labels={series: a.csv}", "labels.series trains without imagery, found both: leave `imagery`"),
        ("folds.fractions=[0.7, 0.3]", "folds.fractions.2: this is required and missing"),
        ("labels.from=start", "labels: `from` and `to` go together"),
        ("predict.period=[2021-06-30, 2021-01-01]", "predict: a period has its first day first, found [2021-06-30,"),
        ("predict.period=[2021-06-30]", "predict.period.1: this is required and missing"),
        ("predict.period=[soon, 2021-06-30]", "predict.period.0: Input should be a valid date"),
        ("predict.periods=label", "predict.periods: "),
        (
            "predict={period: [2021-01-01, 2021-06-30], periods: labels}",
            "predict: give `period` for one map or `periods` for several, found both",
        ),
    ],
)
def test_what_is_wrong_is_named_with_its_place(tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises(JobError) as caught:
        load_job(write_job(tmp_path / "a.yaml"), [override])
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- 1", "a job file holds `key: value` lines, found list"),
        ("a: 1\na: 2", "the key 'a' is given twice"),
        ("a: [", "is not a valid YAML file"),
        ("labels: {path: x}", "a job needs `imagery` (rasters, with labels on them), `labels.series`"),
        ("imagery: !!python/object/apply:os.system [echo]", "is not a valid YAML file"),
    ],
)
def test_a_file_that_is_no_job_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(text)
    with pytest.raises(JobError) as caught:
        load_job(path)
    assert message in str(caught.value)


def test_a_missing_job_file_names_the_nearest(tmp_path: Path) -> None:
    write_job(tmp_path / "sinop.yaml")
    with pytest.raises(JobError, match=r"there is no such job file; did you mean 'sinop.yaml'\?"):
        load_job(tmp_path / "sinpo.yaml")


def test_a_job_on_a_table_has_no_imagery(tmp_path: Path) -> None:
    labels = {"series": "a.parquet", "samples": "b.csv", "from": "start", "to": "end"}
    path = tmp_path / "a.yaml"
    path.write_text(yaml.safe_dump({"labels": labels}))
    job = load_job(path)
    assert (job.imagery, job.labels.from_, job.labels.to) == ([], "start", "end")
    assert (job.labels.series, job.labels.samples) == (str(tmp_path / "a.parquet"), str(tmp_path / "b.csv"))
    (tmp_path / "b.yaml").write_text(job.to_yaml())
    assert load_job(tmp_path / "b.yaml") == job


def test_periods_that_are_mapped(tmp_path: Path) -> None:
    path = write_job(tmp_path / "a.yaml")
    years = [[f"{y}-09-01", f"{y + 1}-08-31"] for y in (2019, 2020)]
    job = load_job(path, [f"predict.periods={json.dumps(years)}"])
    assert isinstance(job.predict.periods, list)
    assert [[str(d) for d in p] for p in job.predict.periods] == years
    assert load_job(path, ["predict.periods=labels"]).predict.periods == "labels"
    assert yaml.safe_load(job.to_yaml())["predict"]["periods"] == years
    (tmp_path / "b.yaml").write_text(job.to_yaml())
    assert load_job(tmp_path / "b.yaml") == job


def test_dates_stay_text(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("imagery: [{path: a.tif, date: 2021-06-30}]\nlabels: {path: b.gpkg}\n")
    assert load_job(path).imagery[0].date == "2021-06-30"


def test_the_commented_job_file_is_the_job(tmp_path: Path) -> None:
    values = yaml.safe_load(write_job(tmp_path / "a.yaml").read_text())
    text = commented(values)
    (tmp_path / "b.yaml").write_text(text)
    loaded = {k: v for k, v in yaml.safe_load(text).items() if v is not None}
    loaded["training"] = {k: v for k, v in loaded["training"].items() if v is not None}
    assert loaded == values
    assert load_job(tmp_path / "b.yaml", ["name=a"]) == load_job(tmp_path / "a.yaml")


def defaults(section: type[BaseModel]) -> set[str]:
    """Return `key: default` of every key of a section and of the sections in it."""
    lines = set()
    for key, field in section.model_fields.items():
        inner = model_in(field.annotation)
        if inner is not None:
            lines |= defaults(inner)
        elif not field.is_required() and field.get_default(call_default_factory=True) not in (None, ""):
            value = yaml.safe_dump(field.get_default(call_default_factory=True), default_flow_style=True, width=1000)
            lines.add(f"{field.alias or key}: {value.split(chr(10))[0]}")
    return lines


def test_every_commented_default_can_be_uncommented(tmp_path: Path) -> None:
    values = yaml.safe_load(write_job(tmp_path / "a.yaml").read_text())
    lines = commented(values).split("\n")
    known = defaults(Job)
    tried = 0
    for i, line in enumerate(lines):
        bare = line.replace("# ", "", 1)
        if line.strip().startswith("# ") and bare.strip() in known:
            (tmp_path / "b.yaml").write_text("\n".join([*lines[:i], bare, *lines[i + 1 :]]))
            load_job(tmp_path / "b.yaml")
            tried += 1
    assert tried > 25


def test_the_schema_knows_every_network() -> None:
    document = json.loads(schema())
    names = {n["properties"]["name"]["const"] for n in document["$defs"]["ModelSettings"]["anyOf"]}
    assert names >= {"mlp", "unet"}
    assert document["properties"]["imagery"]["description"]


def test_every_field_is_documented() -> None:
    assert "|  |\n" not in reference().replace("| `", "\n| `")
    for line in reference().split("\n"):
        if line.startswith("| `"):
            assert line.rstrip("| ").count("|") >= 3, line


def test_the_reference_is_up_to_date() -> None:
    assert (ROOT / "docs" / "job.md").read_text(encoding="utf-8") == reference() + "\n", "run `make docs`"
