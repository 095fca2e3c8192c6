"""Which stored values are data: nodata values, alpha bands, mask files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.windows import Window as RasterioWindow

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Validity:
    """How a dataset says, beside a nodata value, which pixels hold data.

    Attributes
    ----------
    alpha : int or None
        Band, from 1, that is zero where there is none. It is read as a band: GDAL itself takes an alpha band for a mask
        only where it is of type uint8 or uint16.
    masked : bool
        There is a mask for all bands, inside the file or beside it (``.msk``).
    """

    alpha: int | None
    masked: bool

    @classmethod
    def declared(cls, dataset: Any) -> Validity:
        """Return what a file declares."""
        interpretations = dataset.colorinterp
        alpha = interpretations.index(ColorInterp.alpha) + 1 if ColorInterp.alpha in interpretations else None
        flags = dataset.mask_flag_enums[0]
        return cls(alpha=alpha, masked=MaskFlags.per_dataset in flags and MaskFlags.alpha not in flags)

    def of(self, dataset: Any, region: RasterioWindow, stored: Array, nodata: float | None) -> Array:
        """Return where stored values (C, h, w) are data, (C, h, w) bool.

        Raises
        ------
        rasterio.errors.RasterioError
            If the dataset cannot be read there.
        """
        value = None if nodata is None else adjusted(nodata, str(stored.dtype))
        if value is None:
            valid = np.ones(stored.shape, bool)
        elif np.isnan(value):
            valid = ~np.isnan(stored)
        else:
            valid = np.asarray(stored != stored.dtype.type(value))
        if self.alpha is not None:
            valid &= dataset.read(self.alpha, window=region) > 0
        elif self.masked:
            valid &= dataset.dataset_mask(window=region) > 0
        return valid


def adjusted(nodata: float, dtype: str) -> float | None:
    """Return a nodata value as a type can hold it, or None if no pixel of that type can have it."""
    kind = np.dtype(dtype)
    if kind.kind == "f":
        limits = np.finfo(kind)
        # Writers give float32 files the least float64 and mean the least float32.
        return nodata if not np.isfinite(nodata) else min(max(nodata, float(limits.min)), float(limits.max))
    if not float(nodata).is_integer():
        return None
    whole = np.iinfo(kind)
    return nodata if whole.min <= nodata <= whole.max else None
