"""What all stages of one run share: the job, its output folder, and the opened imagery, labels and folds."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.files import digest_of, fingerprint
from workflows.console import Console
from workflows.job import Job
from workflows.output import Output

if TYPE_CHECKING:
    from models.network import Network
    from pipeline.imagery.cube import Cube
    from pipeline.samples.chips import ChipStore
    from pipeline.samples.folds import Folds
    from pipeline.samples.labels import Labels


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
        """The imagery on the output grid."""
        from pipeline.imagery.open import open_cube

        cube, notes = open_cube(self.job.imagery, self.job.grid, self.job.area)
        self.say(notes)
        return cube

    @cached_property
    def labels(self) -> Labels:
        """The reference data."""
        from pipeline.samples.features import open_labels

        labels = open_labels(self.job.labels, self.job.classes, self.cube.geobox)
        self.say(labels.notes)
        return labels

    @cached_property
    def folds(self) -> Folds:
        """The division of labelled places."""
        from pipeline.samples.folds import make_folds

        folds = make_folds(self.labels, self.job.folds, self.network().halo)
        self.say(folds.notes)
        return folds

    def network(self) -> Network:
        """Return a new, untrained network that fits the imagery and the legend."""
        from models.network import build

        cube = self.cube
        return build(
            self.job.model.name,
            self.job.model.settings,
            bands=len(cube.bands),
            dates=len(cube.dates),
            classes=len(self.labels.legend.classes),
        )

    @cached_property
    def chip_size(self) -> int:
        """Side of a chip in pixels."""
        network = self.network()
        return self.job.chips.size or network.chip

    @cached_property
    def software(self) -> dict[str, str]:
        """Versions of what makes the numbers."""
        return {name: version(name) for name in ("landweave", "torch", "rasterio", "numpy")}

    @cached_property
    def inputs(self) -> dict[str, list[dict[str, Any]]]:
        """Fingerprints of all input files, by kind."""
        label_files = [Path(self.job.labels.path)]
        if label_files[0].suffix.lower() == ".shp":
            label_files += [p for s in (".dbf", ".prj", ".shx") if (p := label_files[0].with_suffix(s)).is_file()]
        area = [Path(self.job.area)] if self.job.area else []
        return {
            "imagery": [fingerprint(p) for p in imagery_files(self.cube)],
            "labels": [fingerprint(p) for p in label_files if p.is_file()],
            "area": [fingerprint(p) for p in area],
        }

    def key_imagery(self) -> dict[str, Any]:
        """Return what the cube's values depend on. Places of files do not count, contents do."""
        return {
            "settings": [pathless(entry.model_dump(mode="json")) for entry in self.job.imagery],
            "grid": None if self.job.grid is None else pathless(self.job.grid.model_dump(mode="json")),
            "files": [pathless(f) for f in self.inputs["imagery"] + self.inputs["area"]],
        }

    def key_prepare(self) -> dict[str, Any]:
        """Return what the chips depend on."""
        job = self.job
        return {
            "imagery": self.key_imagery(),
            "labels": {
                "settings": pathless(job.labels.model_dump(mode="json", by_alias=True)),
                "files": [pathless(f) for f in self.inputs["labels"]],
            },
            "classes": None if job.classes is None else [c.model_dump(mode="json") for c in job.classes],
            "folds": job.folds.model_dump(mode="json"),
            "chips": {"size": self.chip_size, "max_per_class": job.chips.max_per_class, "buffer": self.folds.buffer},
            "software": self.software,
        }

    def key_train(self) -> dict[str, Any]:
        """Return what the bundle depends on."""
        training = self.job.training.model_dump(mode="json")
        # Where figures are logged, and on what the work is done, does not make another model.
        for name in ("track", "devices"):
            training.pop(name, None)
        return self.key_prepare() | {"model": self.job.model.model_dump(mode="json"), "training": training}


def pathless(value: dict[str, Any]) -> dict[str, Any]:
    """Return settings without their paths: a result does not depend on where its inputs lie."""
    return {
        k: pathless(v) if isinstance(v, dict) else v
        for k, v in value.items()
        if k not in ("path", "like", "mtime") or v is None
    }


def imagery_files(cube: Cube) -> list[Path]:
    """Return the files a cube is read from, masks included, each once."""
    paths: dict[str, None] = {}
    for source in cube.sources:
        paths[source.path] = None
        if source.mask is not None:
            paths[source.mask.path] = None
    return [Path(p) for p in paths if Path(p).is_file()]


def run_id(key: dict[str, str]) -> str:
    """Return a short name for a map made from these inputs; the same inputs give the same name."""
    return digest_of(key)[:12]
