"""The parts of the job file that `pipeline` reads. Each option is documented at its field, and nowhere else."""

from __future__ import annotations

import datetime
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Resampling = Literal["nearest", "bilinear", "cubic", "cubic_spline", "lanczos", "average", "mode"]
Color = Annotated[str, Field(pattern=r"^#[0-9a-fA-F]{6}$")]
Bit = Annotated[int, Field(ge=0, le=63)]


class Settings(BaseModel):
    """Base of every section: unknown keys are refused, values never change after validation."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class MaskSettings(Settings):
    """Pixels to be left out, named by a classification or quality raster."""

    path: str | list[str] | None = Field(
        None, description="Mask raster: a file, a list or a glob. Default: a band of the imagery file itself."
    )
    band: Annotated[int, Field(ge=1)] | Literal["dates"] | None = Field(
        None,
        description="Band of the mask raster, counted from 1; dates: its bands are the dates of the imagery file. Default: "
        "dates where the bands of the imagery file are dates and the mask has as many, else 1.",
    )
    date: str | None = Field(
        None, description="How a date stands in the names of the mask files. Default: as in those of the imagery."
    )
    exclude: list[int] = Field([], description="Values of the mask that make a pixel invalid.")
    bits: list[Bit] = Field(
        [],
        description="Bits, counted from 0, of which any that is set makes a pixel invalid: [1, 3, 4] of a Landsat QA_PIXEL "
        "are dilated cloud, cloud and cloud shadow.",
    )

    @model_validator(mode="after")
    def _something(self) -> MaskSettings:
        if not self.exclude and not self.bits:
            raise ValueError(
                "a mask needs `exclude` (values that make a pixel invalid), `bits` (bits that do), or both; found neither"
            )
        return self


class ImagerySettings(Settings):
    """One raster source, or several that belong together. All entries are put on one grid."""

    path: str | list[str] = Field(
        description="A file, a list or a glob; anything GDAL opens. Relative to the job file. Files that differ only in "
        "one part of their names and hold one band each are taken as a file per band."
    )
    bands: dict[str, int] | list[str] | None = Field(
        None,
        description="Band names with their number in the file (from 1), or a list of names in file order. Bands that "
        "are not named are not used. Default: the file's own band names; masks and constant bands are left out, and said.",
    )
    band: str | None = Field(None, description="Name of the one band whose dates are the bands of the file.")
    dates: str | list[str] | None = Field(
        None, description="Dates of the bands of the file: a list, a file with a date a line, or `bands`."
    )
    date: str | None = Field(
        None, description='How a date stands in the file name ("%Y%m%d", "%Y%j"), or a fixed date (2021-06-30).'
    )
    nodata: float | dict[datetime.date, float] | None = Field(
        None,
        description="Value that means no data; or values by the date from which on they hold. Default: the file's own.",
    )
    scale: float | dict[datetime.date, float] | None = Field(
        None,
        description="Factor applied to stored values; or factors by the date from which on they hold. Default, also before "
        "the first of these dates: the file's own, else 1.",
    )
    offset: float | dict[datetime.date, float] | None = Field(
        None,
        description="Added after scaling; or numbers by the date from which on they hold, such as {2022-01-25: -0.1}. "
        "Default, also before the first of these dates: the file's own, else 0.",
    )
    mask: MaskSettings | None = Field(None, description="Pixels to be left out, named by another raster or band.")
    resampling: Resampling = Field(
        "bilinear", description="Used only where this source is not on the output grid. Masks always take the nearest."
    )
    crs: str | None = Field(None, description="CRS of files that state none, e.g. EPSG:32615.")


class TemporalSettings(Settings):
    """The steps in time to which images are brought."""

    every: int | None = Field(
        None, ge=1, description="Days between regular steps, from the first image on. Default: the dates of the images."
    )
    fill: Literal["linear", "nearest", "none"] = Field(
        "none",
        description="What a pixel gets on a step without a valid image. linear: between the valid ones before and after, held "
        "constant before the first and after the last. nearest: the nearest valid one, of two the earlier. none: with "
        "`every`, the nearest within half a step; else it stays invalid.",
    )
    composite: Literal["none", "median", "best"] = Field(
        "none",
        description="One value from the valid images of a step's days (needs `every`). median: of each band. best: the one "
        "nearest to the middle of these days.",
    )

    @model_validator(mode="after")
    def _steps(self) -> TemporalSettings:
        if self.composite != "none" and self.every is None:
            raise ValueError(f"composite: {self.composite} needs `every`, the days of which it is made; found none")
        return self


class GridSettings(Settings):
    """The pixel grid of all outputs. Default: the grid of the first source."""

    like: str | None = Field(None, description="Take the grid of this raster.")
    crs: str | None = Field(None, description="CRS of the grid, e.g. EPSG:32721. Default: that of the first source.")
    resolution: float | None = Field(None, gt=0, description="Side of a pixel in units of the CRS.")
    bounds: tuple[float, float, float, float] | None = Field(
        None, description="left, bottom, right, top in the grid's CRS. Default: the extent of the first source."
    )


class ClassSettings(Settings):
    """One class of the map."""

    name: str = Field(min_length=1, description="Name shown in legends.")
    code: int | None = Field(None, ge=0, le=65534, description="Value in the class map. Default: 1, 2, 3, ...")
    color: Color | None = Field(None, description='Colour as "#rrggbb". Default: from a palette.')
    labels: list[str | int] | None = Field(
        None, description="Values of the label field that mean this class. Default: the name itself."
    )


class LabelSettings(Settings):
    """The reference data: what is where."""

    path: str | None = Field(
        None,
        description="Vector file, CSV of points (x, y or lon, lat), or a label raster. Either this, `series` or `chips`.",
    )
    layer: str | None = Field(None, description="Layer of the vector file. Default: the only one.")
    field: str | None = Field(None, description="Field with the label. A label raster needs none.")
    from_: str | None = Field(
        None,
        alias="from",
        description="Field with the first day on which a label holds: each sample sees the images of its own period, and "
        "their days are counted from that day.",
    )
    to: str | None = Field(None, description="Field with the last day on which a label holds; that day is within it.")
    series: str | None = Field(
        None,
        description="Table of labelled series (parquet or csv): a row per sample and date, a column per band. Trains a "
        "pixel network without imagery.",
    )
    chips: str | None = Field(
        None,
        description="Folder of labelled chips, a folder per class: <class>/<file>; or divided already: train/<class>/<file>, "
        "test/<class>/<file> and, if there is one, val/<class>/<file>. Files are GeoTIFF, PNG, JPEG, or .npz with one array "
        "(or one named x) of (bands, side, side), else (side, side, bands), or (side, side). The label is that of the centre, "
        "the pixel at half height and half width. Trains a network without imagery.",
    )
    samples: str | None = Field(
        None,
        description="Table with a row per sample: its label, and if known its longitude and latitude, period and fold. "
        "Default: these columns stand in `series` itself.",
    )
    id: str = Field("sample_id", description="Column that names the sample, in `series` and `samples`.")
    date: str = Field("date", description="Column of `series` with the date.")
    bands: list[str] | None = Field(
        None, description="Columns of `series` that are bands. Default: all columns of numbers that are nothing else."
    )
    units: str = Field("", description="Units of the number that labels state (task: regression), such as m or t/ha.")
    fold: str | None = Field(
        None, description="Field with the fold of each label: train, val, test, or folds to be cross-validated."
    )
    crs: str | None = Field(None, description="CRS of labels that state none. A CSV with lon, lat is EPSG:4326.")
    all_touched: bool = Field(
        False, description="Label every pixel a polygon touches, not only those whose centre it covers."
    )

    @property
    def file(self) -> str:
        """The vector file or raster; of labels that stand by themselves, the table of series or the folder of chips."""
        return str(self.path or self.series or self.chips)

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        found = [name for name in ("path", "series", "chips") if getattr(self, name) is not None]
        if len(found) != 1:
            raise ValueError(
                "give `path` (features or a raster on imagery), `series` (a table) or `chips` (a folder), found "
                + (" and ".join(found) or "none of them")
            )
        if self.chips is not None:
            # A job that was written out in full states the defaults of all of them.
            fields = type(self).model_fields
            idle = [f.alias or n for n, f in fields.items() if n != "chips" and getattr(self, n) != f.default]
            if idle:
                raise ValueError(
                    f"a folder of chips says all by its folders, so `{idle[0]}` means nothing; found {idle}"
                )
        if (self.from_ is None) != (self.to is None):
            raise ValueError("`from` and `to` go together: the first and the last day of a label; found one of them")
        if self.series is None and (self.samples or self.bands):
            raise ValueError("`samples` and `bands` belong to a table of series: give `series` too")
        return self


class FoldSettings(Settings):
    """How labelled places are divided into training, validation and test folds."""

    method: Literal["auto", "features", "blocks", "field"] = Field(
        "auto",
        description="features: whole polygons, stratified by class. blocks: squares of land. field: a field of the labels "
        "says train, val or test. auto: field `fold` if there is one, features while they are few, else blocks.",
    )
    field: str | None = Field(None, description="Field with train, val or test (method: field).")
    size: float | None = Field(
        None, gt=0, description="Side of a block of land in map units (method: blocks). Default: from the extent."
    )
    k: int | None = Field(
        None,
        ge=0,
        le=16,
        description="Cross-validate with k folds; 0: one split. Default: 10 where a class has too few features for three "
        "folds, else 0.",
    )
    fractions: tuple[float, float, float] = Field(
        (0.6, 0.2, 0.2), description="Shares of training, validation and test (one split)."
    )
    buffer: int | None = Field(
        None,
        ge=0,
        description="Labels of training nearer than this many pixels to labels of another fold are left out. "
        "Default: the halo of the network.",
    )
    seed: int = Field(0, ge=0, description="Seed of the division.")


class ChipSettings(Settings):
    """Training samples."""

    size: int | None = Field(
        None,
        ge=1,
        description="Side of a chip in pixels. Default: the network's own (1 for pixel networks). Networks that learn from "
        "patches around labelled pixels have one size of them, which follows from their own settings.",
    )
    samples: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(
        "auto",
        description="Places drawn over the whole image where there are no labels; auto: 20,000 single pixels, or 1,000 chips.",
    )
    max_per_class: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(
        "auto",
        description="Most labelled pixels kept of a class and fold, for networks that learn from single pixels or from patches "
        "around them; drawn with the seed, and said. auto: 50,000 pixels, or 5,000 patches, each of which is a file.",
    )

    def most(self, *, patches: bool) -> int:
        """Return the most labelled pixels that are kept of a class and fold."""
        if self.max_per_class != "auto":
            return self.max_per_class
        return 5_000 if patches else 50_000


class ComputeSettings(Settings):
    """Where the work runs."""

    workers: Annotated[int, Field(ge=1)] | Literal["auto", "gpus"] = Field(
        "auto",
        description="Worker processes on this machine; gpus: one per GPU, which sees no other; auto: this process alone.",
    )
    threads: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(
        "auto",
        description="Blocks in work at once per worker; auto: the cores of this machine, divided among its workers, or fewer "
        "where memory wants it.",
    )
    memory: str | Literal["auto"] = Field(
        "auto",
        description='Memory budget of a worker, e.g. "8GiB"; auto: of the container or the machine, divided among its workers.',
    )
    scheduler: str | None = Field(
        None,
        description="A running Dask cluster, which then does the work: the address of its scheduler, e.g. tcp://node:8786, or "
        "the file that `dask scheduler --scheduler-file` writes. Its workers are as they were started; see docs/cluster.md.",
    )
