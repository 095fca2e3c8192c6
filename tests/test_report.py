"""The report page: complete, by itself, honest, and safe with odd names."""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.crs import CRS
from rich.console import Console

from pipeline.maps.areas import AreaRow
from workflows.pictures import class_picture, ramp_picture
from workflows.report import ReportData, quicklook, terminal_picture, write_report
from workflows.tables import write_areas_csv
from workflows.verdict import percent

NORTH_UP = Affine(10, 0, 500_000, 0, -10, 5_000_000)
VOID = {"area", "base", "br", "col", "hr", "img", "input", "link", "meta", "path", "rect", "use"}


@dataclass
class Entry:
    name: str
    code: int
    color: str


LEGEND = [Entry("water", 1, "#3b7dbd"), Entry("<b>odd</b> & $x", 2, "#1b6b3a"), Entry("field", 7, "#ecc94b")]


def write(path: Path, values: np.ndarray[Any, Any], nodata: float, **options: Any) -> Path:
    profile = {"crs": "EPSG:32633", "transform": NORTH_UP} | options
    height, width = values.shape
    with rasterio.open(
        path, "w", driver="GTiff", count=1, height=height, width=width, dtype=values.dtype, nodata=nodata, **profile
    ) as raster:
        raster.write(values, 1)
        if values.dtype == np.uint16:
            raster.scales = (1e-4,)
    return path


@pytest.fixture
def maps(tmp_path: Path) -> dict[str, Path]:
    folder = tmp_path / "maps"
    folder.mkdir()
    codes = np.array([1, 2, 7], dtype=np.uint8)[np.add.outer(np.arange(30) // 10, np.arange(40) // 10) % 3]
    codes[:4, :4] = 0
    sure = np.full((30, 40), 9000, dtype=np.uint16)
    saliency = np.linspace(0, 1, 1200, dtype=np.float32).reshape(30, 40)
    saliency[:4, :4] = np.nan
    return {
        "classes": write(folder / "classes.tif", codes, 0),
        "confidence": write(folder / "confidence.tif", sure, 65535),
        "saliency": write(folder / "saliency.tif", saliency, float("nan")),
    }


def accuracy(confusion: list[list[int]]) -> dict[str, Any]:
    table = np.array(confusion)
    rows, columns, hits = table.sum(1), table.sum(0), np.diag(table)
    classes = [
        {
            "code": c.code, "name": c.name, "support": int(r),
            "precision": h / k if k else None, "recall": h / r if r else None,
            "f1": 2 * h / (r + k) if r + k else None, "iou": h / (r + k - h) if r + k else None,
        }
        for c, r, k, h in zip(LEGEND, rows.tolist(), columns.tolist(), hits.tolist(), strict=True)
    ]  # fmt: skip
    n = int(table.sum())
    overall = float(hits.sum() / n) if n else None
    return {"n": n, "overall": overall, "kappa": 0.4321, "macro_f1": 0.8765, "classes": classes, "confusion": confusion}


AREAS = [
    AreaRow(code=1, name="water", color="#3b7dbd", pixels=4321, samples=50, counted_ha=432.1, adjusted_ha=411.0,
            interval_ha=37.0, note=""),
    AreaRow(code=7, name="field", color="#ecc94b", pixels=99, samples=1, counted_ha=9.9, adjusted_ha=None,
            interval_ha=None, note="one sample only"),
]  # fmt: skip
HISTORY = [
    {"epoch": i, "train_loss": 1 / (i + 1), "val_loss": 1.2 / (i + 1), "val_macro_f1": 0.1 * i} for i in range(5)
]
CALIBRATION = {
    "n": 321, "temperature": 1.37, "error_before": 0.1111, "error_after": 0.0222,
    "bins": [{"low": 0.4, "high": 0.6, "n": 21, "confidence": 0.5, "accuracy": 0.45},
             {"low": 0.8, "high": 1.0, "n": 300, "confidence": 0.9, "accuracy": 0.92}],
}  # fmt: skip


def data(**more: Any) -> ReportData:
    base: dict[str, Any] = {
        "name": "a <script>alert(1)</script> job",
        "settings": {"training": {"epochs": 4711}, "note": "</pre><img src=x>"},
        "software": {"landweave": "0.1.0"},
        "run_id": "abc123",
        "legend": LEGEND,
        "accuracy": accuracy([[90, 5, 5], [3, 80, 17], [0, 0, 100]]),
    }
    return ReportData(**base | more)


def everything(maps: dict[str, Path]) -> ReportData:
    return data(
        forest=accuracy([[80, 15, 5], [13, 70, 17], [5, 5, 90]]),
        evaluated="The test fold.",
        facts={"Network": "unet"},
        rounds=[{"network": accuracy([[9, 1, 0], [0, 8, 2], [0, 0, 7]]), "forest": None}] * 2,
        areas=AREAS,
        histories=[HISTORY, HISTORY],
        labels=[{"class": "water", "features": 12, "per_fold": {"train": 7, "test": 5}}],
        notes=["band 8 is left out: a <mask>"],
        calibration=CALIBRATION,
        layers=maps,
        created="2024-06-21",
    )


class Page(HTMLParser):
    """Collects tags, and refuses elements that are not closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag


def page(folder: Path, content: ReportData) -> str:
    path = folder / "report" / "index.html"
    assert write_report(path, content) == path
    return path.read_text(encoding="utf-8")


def test_the_page_stands_by_itself(tmp_path: Path, maps: dict[str, Path]) -> None:
    text = page(tmp_path, everything(maps))
    found = Page(text)
    for tag, attributes in found.tags:
        assert tag not in {"script", "link", "iframe", "object"}
        for name in ("src", "href", "xlink:href", "srcset"):
            value = attributes.get(name) or ""
            assert not re.match(r"(?i)(https?:)?//", value), (tag, value)
        assert not any(name.startswith("on") for name in attributes)
    assert "@import" not in text
    assert not re.search(r"url\((?!#)", text)
    images = [a for t, a in found.tags if t == "img"]
    assert len(images) == 3
    assert all(a["alt"] and (a["src"] or "").startswith("data:image/png;base64,") for a in images)
    assert all(a.get("aria-label") for t, a in found.tags if t == "svg")
    assert all(a.get("scope") for t, a in found.tags if t == "th")
    assert [a["href"] for t, a in found.tags if t == "a"] == [f"../maps/{p.name}" for p in maps.values()]


def test_the_figures_given_are_shown(tmp_path: Path, maps: dict[str, Path]) -> None:
    text = page(tmp_path, everything(maps))
    for figure in (
        "90.0\u00a0%",
        "80.0\u00a0%",
        "0.432",
        "0.876",
        "4,321",
        "411\u00a0±\u00a037\u00a0ha",
        "1.37",
        "0.111",
        "0.022",
    ):
        assert figure in text, figure
    for shown in (
        "300 labelled pixels",
        "10.0 points better",
        "The test fold.",
        "abc123",
        "4711",
        "one sample only",
        "drawn at random",
    ):
        assert shown in text, shown
    assert "train 7, test 5" in text
    assert text.count('<svg role="img"') == 3


def test_odd_names_are_text(tmp_path: Path, maps: dict[str, Path]) -> None:
    text = page(tmp_path, everything(maps))
    assert "<b>odd" not in text
    assert "&lt;b&gt;odd&lt;/b&gt; &amp; $x" in text
    assert "<script" not in text
    assert "<img src=x" not in text
    assert "a &lt;mask&gt;" in text


def test_what_is_missing_leaves_its_section_out(tmp_path: Path) -> None:
    text = page(tmp_path, data())
    found = re.findall(r"<h2>(.*?)</h2>", text)
    assert found == ["Accuracy", "What is taken for what", "How it was made"]
    assert "forest" not in text
    assert "<img" not in text


def test_without_test_pixels_no_accuracy_is_claimed(tmp_path: Path) -> None:
    text = page(tmp_path, data(accuracy=accuracy([[0] * 3] * 3) | {"kappa": None, "macro_f1": None}))
    assert "holds no accuracy" in text
    assert not re.search(r"\d\u00a0%", text)


def test_a_class_without_pixels_has_a_dash(tmp_path: Path) -> None:
    text = page(tmp_path, data(accuracy=accuracy([[5, 0, 0], [0, 0, 0], [1, 0, 4]])))
    row = re.search(r"<tr><th scope=\"row\">(?:(?!</tr>).)*odd(?:(?!</tr>).)*</tr>", text)
    assert row is not None
    assert row[0].count("–") == 4


@pytest.mark.parametrize(
    ("forest", "said"),
    [
        ([[95, 0, 5], [0, 100, 0], [0, 0, 100]], "does not earn its cost"),
        ([[90, 5, 5], [3, 80, 17], [0, 1, 99]], "about as good"),
    ],
)
def test_a_network_that_is_no_better_is_called_so(tmp_path: Path, forest: list[list[int]], said: str) -> None:
    assert said in page(tmp_path, data(forest=accuracy(forest)))


def test_the_same_data_gives_the_same_page(tmp_path: Path, maps: dict[str, Path]) -> None:
    assert page(tmp_path, everything(maps)) == page(tmp_path, everything(maps))


def test_rare_is_not_never() -> None:
    assert [percent(v) for v in (0.0, 0.0001, 0.5, 0.9999, 1.0, None)] == [
        "0.0\u00a0%", "<\u00a00.1\u00a0%", "50.0\u00a0%", ">\u00a099.9\u00a0%", "100.0\u00a0%", "–",
    ]  # fmt: skip


def test_areas_as_csv(tmp_path: Path) -> None:
    write_areas_csv(tmp_path / "areas.csv", {"": AREAS})
    with (tmp_path / "areas.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert rows[0]["class"] == "water"
    assert (float(rows[0]["adjusted_ha"]), float(rows[0]["interval_95_ha"])) == (411.0, 37.0)
    assert (rows[1]["adjusted_ha"], rows[1]["interval_95_ha"], rows[1]["samples"]) == ("", "", "1")


def test_the_scale_bar_is_true(tmp_path: Path) -> None:
    values = np.ones((100, 200), dtype=np.uint8)
    picture = class_picture(write(tmp_path / "a.tif", values, 0), LEGEND)
    assert picture.bar is not None
    share, text = picture.bar
    assert text == "500 m"
    assert share == pytest.approx(500 / 2000, rel=2e-3)
    assert picture.north == pytest.approx(0, abs=0.01)
    # Web Mercator stretches: a pixel of 10 m at 60 degrees north is 5 m wide.
    far = Affine(10, 0, 1_000_000, 0, -10, 8_399_738)
    picture = class_picture(write(tmp_path / "b.tif", values, 0, crs="EPSG:3857", transform=far), LEGEND)
    assert picture.bar is not None
    assert picture.bar[1] == "200 m"
    assert picture.bar[0] == pytest.approx(200 / 1000, rel=1e-2)


def test_a_raster_without_a_place_has_no_bar_and_no_arrow(tmp_path: Path) -> None:
    picture = class_picture(write(tmp_path / "a.tif", np.ones((8, 8), np.uint8), 0, crs=CRS()), LEGEND)
    assert picture.bar is None
    assert picture.north is None
    assert "no CRS" in picture.caption


def test_large_rasters_are_read_small(tmp_path: Path) -> None:
    picture = class_picture(write(tmp_path / "a.tif", np.ones((300, 600), np.uint8), 0), LEGEND, most=100)
    assert (picture.width, picture.height) == (100, 50)
    assert "600 x 300" in picture.caption


def test_a_layer_without_a_valid_pixel_has_no_ramp(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", np.full((8, 8), np.nan, np.float32), float("nan"))
    picture = ramp_picture(path, colors="magma")
    assert (picture.low, picture.high) == (None, None)
    assert "No valid pixel" in page(tmp_path, data(layers={"saliency": path}))


def test_more_classes_than_a_palette_holds(tmp_path: Path) -> None:
    legend = [Entry(f"class {i}", i, f"#{i:06x}") for i in range(1, 301)]
    path = write(tmp_path / "a.tif", np.arange(1, 301, dtype=np.uint16).reshape(15, 20), 0)
    assert class_picture(path, legend).uri.startswith("data:image/png")


def test_quicklook(tmp_path: Path, maps: dict[str, Path]) -> None:
    legend = [*LEGEND, Entry("森林", 9, "#000000")]
    path = quicklook(maps["classes"], legend, tmp_path / "q" / "map.png", title="a_b $c")
    assert path.read_bytes().startswith(b"\x89PNG")
    assert [p.name for p in path.parent.iterdir()] == ["map.png"]


def test_terminal_picture(maps: dict[str, Path]) -> None:
    console = Console(force_terminal=True, color_system="truecolor", width=50)
    with console.capture() as capture:
        console.print(terminal_picture(maps["classes"], LEGEND, columns=40))
    drawn = capture.get()
    assert "▀" in drawn
    assert "38;2;59;125;189" in drawn
    assert "<b>odd</b>" in drawn
    # 40 columns of the map and a margin of two; 30 rows, two a line.
    lines = [re.sub("\x1b\\[[0-9;]*m", "", line) for line in drawn.splitlines()]
    assert [len(line) for line in lines[:15]] == [42] * 15


def test_no_picture_where_there_are_no_colours(maps: dict[str, Path]) -> None:
    console = Console(force_terminal=False, width=50)
    with console.capture() as capture:
        console.print(terminal_picture(maps["classes"], LEGEND))
    assert capture.get().strip() == ""
