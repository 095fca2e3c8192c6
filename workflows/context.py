"""What all stages of one run share: the job, its output folder, and the opened imagery, labels and folds."""

from __future__ import annotations

import datetime
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import RequestError
from pipeline.files import fingerprint, fingerprint_folder
from workflows.console import Console
from workflows.job import Job
from workflows.keys import imagery_files
from workflows.output import Output
from workflows.reach import check_reach

if TYPE_CHECKING:
    from models.bundle import Bundle
    from models.horizon import Horizon
    from models.network import Network
    from pipeline.imagery.cube import Cube
    from pipeline.imagery.dates import Period
    from pipeline.samples.chips import ChipStore
    from pipeline.samples.folds import Folds
    from pipeline.samples.labels import Labels
    from pipeline.samples.legend import Legend
    from pipeline.samples.standalone import Samples
    from pipeline.samples.unlabelled import Unlabelled


# Samples where nothing is labelled.
_PIXELS, _CHIPS = 20_000, 1_000


@dataclass
class Context:
    """One run in work. Things are opened when first asked for, once.

    Attributes
    ----------
    job : Job
        The job as resolved.
    console : Console
        Where the user is spoken to.
    overwrite : bool
        Make again what was made from other inputs.
    store : ChipStore or None
        The chips, once they are known to be up to date.
    """

    job: Job
    console: Console
    overwrite: bool = False
    store: ChipStore | None = None
    _said: set[str] = field(default_factory=set)

    @cached_property
    def output(self) -> Output:
        """The output folder."""
        return Output(self.job.folder)

    @cached_property
    def notes(self) -> list[str]:
        """What was decided while opening imagery, labels and folds; for the report."""
        return []

    def say(self, texts: list[str]) -> None:
        """Tell the user what was decided, once, and keep it for the report."""
        for text in texts:
            if text not in self._said:
                self._said.add(text)
                self.notes.append(text)
                self.console.note(text)

    @cached_property
    def cube(self) -> Cube:
        """The imagery on the output grid.

        Raises
        ------
        RequestError
            If the job has none.
        """
        from pipeline.imagery.open import open_cube

        if not self.job.imagery:
            what = "a table of series" if self.job.labels and self.job.labels.series else "a folder of chips"
            raise RequestError(
                f"the job '{self.job.name}' trains on {what} and has no imagery; map rasters with its model: "
                f"landweave apply {self.output.model} RASTER... -o DIR"
            )
        job = self.job
        cube, notes = open_cube(
            job.imagery, job.grid, job.area, temporal=job.temporal, indices=job.indices, roles=job.roles
        )
        self.say(notes)
        return cube

    @cached_property
    def samples(self) -> Samples | None:
        """The labelled samples, where the job trains on such as stand by themselves: a table of series, or chips."""
        from pipeline.samples.folders import open_chips
        from pipeline.samples.series import open_series

        job = self.job
        if job.labels is None or job.labels.path is not None:
            return None
        samples: Samples
        if job.labels.series is not None:
            samples = open_series(job.labels, job.classes, job.temporal, job.indices, job.roles)
        else:
            if job.temporal != type(job.temporal)():
                raise RequestError("temporal: a chip has one date, and no steps in time; leave it out")
            samples = open_chips(job.labels, job.classes, job.indices, job.roles)
        self.say(samples.notes)
        return samples

    @cached_property
    def labels(self) -> Labels:
        """The reference data on the grid; where nothing is labelled, places drawn over the image."""
        from pipeline.samples.features import open_labels

        if self.job.labels is None:
            labels: Labels = self.land()
        else:
            # Images, not steps between them: of a period without any nothing can be filled in.
            labels = open_labels(
                self.job.labels,
                self.job.classes,
                self.cube.geobox,
                self.cube.observed,
                numeric=self.job.task == "regression",
            )
        self.say(labels.notes)
        return labels

    def land(self) -> Unlabelled:
        """Return places drawn over the image, whatever is there."""
        from pipeline.samples.unlabelled import draw_places

        cell, number = self.chip_size - 2 * self.chip_margin, self.job.chips.samples
        if number == "auto":
            number = _CHIPS if cell > 1 else _PIXELS
        return draw_places(self.cube.geobox, cell=cell, number=number, seed=self.job.folds.seed, area=self.cube.area)

    @cached_property
    def legend(self) -> Legend:
        """The classes."""
        return self.labels.legend if self.samples is None else self.samples.legend

    @cached_property
    def cubes(self) -> tuple[Cube, ...]:
        """The imagery of each period in which labels hold, all of as many dates; the whole imagery where they always do."""
        from pipeline.imagery.periods import cubes_of

        if self.job.labels is None:
            return (self.cube,)
        cubes, notes = cubes_of(self.cube, self.labels.periods)
        self.say(notes)
        return cubes

    @property
    def imaged(self) -> tuple[Cube, ...]:
        """The imagery of each period in which labels hold; empty where samples stand by themselves."""
        return () if self.samples is not None else self.cubes

    def seen(self, role: int) -> tuple[Cube, ...]:
        """Return the imagery on which labels of a role are scored: `imaged`, but for a forecast, which has a window for each."""
        from pipeline.samples.folds import VAL
        from workflows.horizons import window_of

        if self.job.task != "forecast":
            return self.imaged
        return (window_of(self.cube, self.horizon, self.horizon.validated if role == VAL else self.horizon.tested),)

    @cached_property
    def mapped(self) -> tuple[Period | None, ...]:
        """The periods that are mapped; a single None maps all images together."""
        from pipeline.imagery.dates import Period

        predict, held = self.job.predict, self.labels.periods
        if predict.period is not None:
            return (Period(*predict.period),)
        if isinstance(predict.periods, list):
            return tuple(Period(*p) for p in predict.periods)
        if predict.periods == "labels" or len(held) == 1:
            return held
        latest = max(held, key=lambda p: p.end if p else datetime.date.min)
        self.say(
            [
                f"labels hold for {len(held)} periods; the latest is mapped, {latest} (predict.period chooses another, "
                "predict.periods: labels maps each)"
            ]
        )
        return (latest,)

    @property
    def maps(self) -> list[tuple[Period | None, Output]]:
        """The periods that are mapped, and where each map lies; a single map lies where it always does."""
        if self.job.predict.periods is None:
            return [(self.mapped[0], self.output)]
        return [(p, Output(self.output.folder, p.name if p else "")) for p in self.mapped]

    def cube_of(self, period: Period | None) -> Cube:
        """Return the imagery of a period, with as many dates as the network takes; of a forecast it takes the last."""
        if period is None:
            return self.cube
        return self.cube.during(period, None if self.job.task == "forecast" else len(self.cubes[0].dates))

    @cached_property
    def folds(self) -> Folds:
        """The division of labelled places."""
        from pipeline.samples.folds import make_folds
        from pipeline.samples.standalone import divide_samples

        if self.samples is not None:
            assert self.job.labels is not None
            folds = divide_samples(self.samples, self.job.folds, self.job.labels)
        else:
            settings, labels = self.job.folds, self.job.labels
            if labels is not None and labels.fold and settings.field is None:
                settings = settings.model_copy(update={"field": labels.fold})
            folds = make_folds(self.labels, settings, self.network().halo)
        self.say(folds.notes)
        return folds

    def network(self) -> Network:
        """Return a new, untrained network that fits the imagery, or the samples, and the legend.

        Raises
        ------
        RequestError
            If it looks further around a pixel than samples that stand by themselves reach.
        """
        from models.table import build

        samples, job = self.samples, self.job
        if samples is not None:
            bands, dates = len(samples.bands), samples.dates
        else:
            bands, dates = len(self.cube.bands), len(self.cubes[0].dates)
        if job.task == "classification":
            outputs = len(self.legend.classes)
        elif job.task == "forecast":
            dates, outputs = self.horizon.history, self.horizon.steps * len(self.horizon.bands)
        else:
            outputs = 1 if job.task == "regression" else 0
        network = build(job.model.name, job.model.settings, bands=bands, dates=dates, classes=outputs)
        if samples is not None:
            check_reach(network, samples)
        return network

    @cached_property
    def horizon(self) -> Horizon:
        """Which dates of the imagery are seen, and which are forecast.

        Raises
        ------
        ModelError, RequestError
            If the series is too short, or a band is not there.
        """
        from workflows.horizons import horizon_of

        return horizon_of(self.cube, self.job.forecast)

    @cached_property
    def chip_size(self) -> int:
        """Side of a chip in pixels, margins included.

        Raises
        ------
        RequestError
            If the job states another than the network's patches have.
        """
        network, stated = self.network(), self.job.chips.size
        if not self.centred:
            return stated or network.chip
        patch = 2 * network.halo + 1
        if stated not in (None, patch):
            raise RequestError(
                f"chips.size: found {stated}, but the network '{network.name}' learns from patches of {patch} x {patch} pixels, "
                "all that it sees around a label; leave chips.size out, or change the network's own settings"
            )
        return patch

    @cached_property
    def chip_margin(self) -> int:
        """Pixels on each side of a chip that hold values and no labels: the halo, where chips are patches."""
        return self.network().halo if self.centred else 0

    @property
    def centred(self) -> bool:
        """Whether a sample is what the network sees around one label: of every network, where that is all there is."""
        return self.samples is not None or self.network().centred

    def check_predict(self) -> None:
        """Refuse what mapping would refuse, before anything is trained for it.

        Raises
        ------
        JobError
            If the target is no class, the baseline states a band that the imagery does not have, or a method gives none of
            the layers that are asked for.
        ModelError
            If the engine lacks its packages.
        """
        from models.onnx import require
        from workflows.explainers import check_names, planned
        from workflows.explanations import explanations_of

        if self.job.predict.engine.startswith("onnx"):
            require(f"predict.engine: {self.job.predict.engine}")
        if "saliency" not in self.job.predict.layers or self.samples is not None:
            return
        settings, network = self.job.saliency, self.network()
        classes = [c.name for c in self.legend.classes] if self.job.task == "classification" else []
        check_names(settings, classes, self.cube.bands)
        explanations_of(planned(settings), settings, bands=network.bands, dates=network.dates)

    @cached_property
    def software(self) -> dict[str, str]:
        """Versions of what makes the numbers."""
        return {name: version(name) for name in ("landweave", "torch", "rasterio", "numpy")}

    @cached_property
    def inputs(self) -> dict[str, list[dict[str, Any]]]:
        """Fingerprints of all input files, by kind."""
        labels = self.job.labels
        named = (labels.path, labels.series, labels.samples) if labels is not None else ()
        label_files = [Path(p) for p in named if p is not None]
        if label_files and label_files[0].suffix.lower() == ".shp":
            label_files += [p for s in (".dbf", ".prj", ".shx") if (p := label_files[0].with_suffix(s)).is_file()]
        chips = [fingerprint_folder(Path(labels.chips))] if labels is not None and labels.chips else []
        area = [Path(self.job.area)] if self.job.area else []
        return {
            "imagery": imagery_files(self.cube) if self.job.imagery else [],
            "labels": [fingerprint(p) for p in label_files if p.is_file()] + chips,
            "area": [fingerprint(p) for p in area],
        }

    @cached_property
    def pretrained(self) -> Bundle | None:
        """The trained model with which training begins.

        Raises
        ------
        BundleError
            If it cannot be read.
        """
        from workflows.apply import load_bundle

        folder = self.job.model.pretrained
        return None if folder is None else load_bundle(Path(folder))
