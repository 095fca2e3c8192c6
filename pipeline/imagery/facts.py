"""What the header of a raster says, learned once however often it is asked for."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from rasterio.crs import CRS

from pipeline.imagery.handles import open_raster


@dataclass(frozen=True, kw_only=True)
class Facts:
    """The header of a raster. Attributes are called as those of a rasterio dataset, and stand in for it."""

    count: int
    shape: tuple[int, int]
    dtypes: tuple[str, ...]
    descriptions: tuple[str | None, ...]
    nodatavals: tuple[float | None, ...]
    scales: tuple[float, ...]
    offsets: tuple[float, ...]
    colorinterp: tuple[Any, ...]
    mask_flag_enums: tuple[list[Any], ...]
    block_shapes: list[tuple[int, int]]
    subdatasets: list[str]
    transform: Any
    crs: CRS | None
    gcps: tuple[Any, Any]
    rpcs: Any

    @classmethod
    def of(cls, dataset: Any) -> Facts:
        """Return the facts of an open dataset."""
        return cls(**{name: getattr(dataset, name) for name in cls.__dataclass_fields__})


@dataclass(frozen=True)
class Known:
    """Facts of rasters by path. Lives as long as imagery is being opened, so no change of a file goes unseen after that."""

    _facts: dict[str, Facts] = field(default_factory=dict)

    def __getitem__(self, path: str) -> Facts:
        """Return the facts of a raster.

        Raises
        ------
        ImageryError
            If it cannot be opened.
        """
        if path not in self._facts:
            with open_raster(path) as dataset:
                self._facts[path] = Facts.of(dataset)
        return self._facts[path]
