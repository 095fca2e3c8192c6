"""Layers: what an output raster holds, how it is stored, and how its values are encoded."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

import numpy as np

Kind = Literal["classes", "scaled", "number"]
Overview = Literal["mode", "nearest", "average"]

# Probabilities and other shares of one are stored as ten-thousandths.
SHARE_SCALE = 0.0001
SHARE_NODATA = 65535


class LegendEntry(Protocol):
    """A class as a layer needs it."""

    @property
    def name(self) -> str:
        """Name shown to people."""

    @property
    def code(self) -> int:
        """Value in the class map."""

    @property
    def color(self) -> str:
        """Colour as ``#rrggbb``."""


class LegendLike(Protocol):
    """The legend as a layer needs it."""

    @property
    def classes(self) -> Sequence[Any]:
        """The classes, each a `LegendEntry`."""

    @property
    def nodata(self) -> int:
        """The code that no class uses."""

    @property
    def dtype(self) -> str:
        """``"uint8"`` or ``"uint16"``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One output raster.

    Attributes
    ----------
    name : str
        Stem of the file: ``classes`` becomes ``classes.tif``.
    kind : {"classes", "scaled", "number"}
        Class codes with a palette; shares of one as scaled integers; floats.
    dtype : str
        NumPy name of the stored type.
    nodata : float
        Stored value where there is nothing to say; NaN for floats.
    bands : tuple of str
        Names of the bands, one at least.
    scale : float
        Stored value times this is the real one.
    overview : {"mode", "nearest", "average"}
        How overviews are made.
    tags : dict of str
        What the file says of itself.
    legend : LegendLike or None
        The classes, for a class map.
    unit : str
        Unit of the values, which the file states for every band; empty where there is none.
    signed : bool
        Of numbers: their sign is what matters most, and zero is the middle.
    """

    name: str
    kind: Kind
    dtype: str
    nodata: float
    bands: tuple[str, ...]
    scale: float = 1.0
    overview: Overview = "average"
    tags: Mapping[str, str] = field(default_factory=dict)
    legend: LegendLike | None = None
    unit: str = ""
    signed: bool = False

    def __post_init__(self) -> None:
        if not self.bands:
            raise ValueError(f"layer {self.name!r} has no bands")
        if (self.kind == "classes") != (self.legend is not None):
            raise ValueError(f"layer {self.name!r}: a class map, and nothing else, has a legend")
        if self.kind == "classes" and self.dtype not in ("uint8", "uint16"):
            # GDAL accepts a palette on other types without a word, and does not store it.
            raise ValueError(f"layer {self.name!r}: a palette needs uint8 or uint16, got {self.dtype}")
        if self.kind == "classes" and self.overview == "average":
            raise ValueError(
                f"layer {self.name!r}: the average of two class codes is a third class; use mode or nearest"
            )

    @classmethod
    def classes(
        cls,
        legend: LegendLike,
        *,
        name: str = "classes",
        band: str = "class",
        overview: Overview = "mode",
        tags: Mapping[str, str] | None = None,
    ) -> Layer:
        """Return the map of a legend's classes, or of other things that have a name, a code and a colour."""
        listed = [{"code": int(c.code), "name": str(c.name), "color": str(c.color)} for c in legend.classes]
        return cls(
            name=name,
            kind="classes",
            dtype=legend.dtype,
            nodata=legend.nodata,
            bands=(band,),
            overview=overview,
            tags={"classes": json.dumps(listed, ensure_ascii=False)} | dict(tags or {}),
            legend=legend,
        )

    @classmethod
    def confidence(cls, *, tags: Mapping[str, str] | None = None) -> Layer:
        """Return the layer of the winning class's calibrated probability."""
        return cls.share("confidence", ("confidence",), tags=tags)

    @classmethod
    def probabilities(cls, legend: LegendLike, *, tags: Mapping[str, str] | None = None) -> Layer:
        """Return the layer of calibrated probabilities, a band per class in the order of the legend."""
        return cls.share("probabilities", [str(c.name) for c in legend.classes], tags=tags)

    @classmethod
    def saliency(
        cls, name: str, bands: Sequence[str], tags: Mapping[str, str] | None = None, *, signed: bool = False
    ) -> Layer:
        """Return a saliency layer; ``bands`` are ``["pixel"]``, names of bands, or dates in ISO form."""
        return replace(cls.number(name, bands, unit="", tags=tags), signed=signed)

    @classmethod
    def number(cls, name: str, bands: Sequence[str], *, unit: str, tags: Mapping[str, str] | None = None) -> Layer:
        """Return a layer of real values, which are stored as they are; NaN is nodata."""
        return cls(
            name=name, kind="number", dtype="float32", nodata=float("nan"), bands=tuple(bands), tags=dict(tags or {}),
            unit=unit,
        )  # fmt: skip

    @classmethod
    def share(cls, name: str, bands: Sequence[str], *, tags: Mapping[str, str] | None = None) -> Layer:
        """Return a layer of shares of one, stored as ten-thousandths."""
        return cls(
            name=name,
            kind="scaled",
            dtype="uint16",
            nodata=SHARE_NODATA,
            bands=tuple(bands),
            scale=SHARE_SCALE,
            tags=dict(tags or {}),
        )

    @property
    def predictor(self) -> int:
        """TIFF predictor: 1 for codes (neighbours do not differ by a little), 2 for integers, 3 for floats."""
        return {"classes": 1, "scaled": 2, "number": 3}[self.kind]

    @property
    def stored(self) -> int:
        """Bytes per pixel before compression."""
        return len(self.bands) * np.dtype(self.dtype).itemsize

    def encode(self, values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Return values as they are stored.

        Parameters
        ----------
        values : (..., h, w) float
            Real values of a layer of shares or numbers; NaN where there is nothing to say.

        Returns
        -------
        (..., h, w) array of `dtype`
            Rounded to the nearest step of `scale`; `nodata` where the input is NaN.

        Raises
        ------
        ValueError
            If a value is infinite or does not fit the stored type.
        """
        if self.kind == "classes":
            raise ValueError(f"layer {self.name!r} holds class codes, which are stored as they are")
        if np.isinf(values).any():
            raise ValueError(f"layer {self.name!r}: an infinite value")
        if self.kind == "number":
            return values.astype(self.dtype, copy=False)
        steps = values / np.asarray(self.scale, values.dtype)
        np.rint(steps, out=steps)
        absent = np.isnan(steps)
        steps[absent] = self.nodata
        most = float(self.nodata) - 1
        if ((steps < 0) | (~absent & (steps > most))).any():
            raise ValueError(f"layer {self.name!r}: a value outside 0..{most * self.scale:g}")
        encoded: np.ndarray[Any, Any] = steps.astype(self.dtype)
        return encoded

    def describe(self) -> dict[str, Any]:
        """Return what the parts of this layer look like, as plain values."""
        return {
            "name": self.name,
            "dtype": self.dtype,
            "nodata": None if np.isnan(self.nodata) else self.nodata,
            "bands": list(self.bands),
            "scale": self.scale,
        }


def rgb(color: str) -> tuple[int, int, int]:
    """Return the red, green and blue of ``#rrggbb``."""
    value = int(color.removeprefix("#"), 16)
    return value >> 16, value >> 8 & 255, value & 255
