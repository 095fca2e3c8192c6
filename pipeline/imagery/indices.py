"""Spectral indices: bands that are computed from other bands of the same date."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from types import CodeType
from typing import Any

import numpy as np

from pipeline.errors import ImageryError, nearest

Array = np.ndarray[Any, Any]

# Role of a band, its sign in formulas, and the names under which it is known without being told: those that people use, of
# STAC, and of Sentinel-2. Numbers of Landsat bands change from sensor to sensor, so they have to be told.
_ROLES: dict[str, tuple[str, tuple[str, ...]]] = {
    "coastal": ("A", ("coastal", "coastal_aerosol", "aerosol", "b01")),
    "blue": ("B", ("blue", "b02")),
    "green": ("G", ("green", "b03")),
    "green1": ("G1", ("green1", "green05")),
    "yellow": ("Y", ("yellow",)),
    "red": ("R", ("red", "b04")),
    "rededge1": ("RE1", ("rededge1", "rededge071", "b05")),
    "rededge2": ("RE2", ("rededge2", "rededge075", "b06")),
    "rededge3": ("RE3", ("rededge3", "rededge078", "b07")),
    "nir": ("N", ("nir", "b08", "nir08", "b8a")),
    "nir2": ("N2", ("nir2", "nir08", "b8a")),
    "watervapour": ("WV", ("watervapour", "watervapor", "nir09", "b09")),
    "swir1": ("S1", ("swir1", "swir16", "b11")),
    "swir2": ("S2", ("swir2", "swir22", "mir", "b12")),
    "thermal": ("T", ("thermal", "lwir")),
    "thermal1": ("T1", ("thermal1", "lwir11")),
    "thermal2": ("T2", ("thermal2", "lwir12")),
    "vv": ("VV", ("vv",)),
    "vh": ("VH", ("vh",)),
    "hv": ("HV", ("hv",)),
    "hh": ("HH", ("hh",)),
}
_BY_SIGN = {sign: role for role, (sign, _) in _ROLES.items()}

# The library's constants are those of EVI; Huete (1988) gives SAVI half of it.
_CONSTANTS = {"SAVI": {"L": 0.5}}


@dataclass(frozen=True, slots=True)
class Index:
    """A spectral index.

    Attributes
    ----------
    name : str
        Its name in the cube, in lower case.
    formula : str
        Arithmetic over the signs of bands and constants, as the library spyndex has it.
    inputs : tuple of (str, str)
        Sign in the formula, and the band of the cube that it stands for.
    constants : tuple of (str, float)
        Sign in the formula, and its value.
    """

    name: str
    formula: str
    inputs: tuple[tuple[str, str], ...]
    constants: tuple[tuple[str, float], ...] = ()

    @property
    def bands(self) -> tuple[str, ...]:
        """Bands that it is computed from."""
        return tuple(band for _, band in self.inputs)

    def of(self, planes: Mapping[str, Array]) -> Array:
        """Return the index, (h, w) float32, from the planes of its bands; not finite where it is not defined."""
        signs: dict[str, Any] = {sign: planes[band] for sign, band in self.inputs}
        with np.errstate(all="ignore"):
            # The formula is the library's, never the user's; it sees numbers and nothing else.
            return np.asarray(eval(_compiled(self.formula), {"__builtins__": {}}, signs | dict(self.constants)))  # noqa: S307


@cache
def _compiled(formula: str) -> CodeType:
    return compile(formula, "<spectral index>", "eval")


def find_indices(names: Sequence[str], bands: Sequence[str], roles: Mapping[str, str] | None) -> tuple[Index, ...]:
    """Return spectral indices by name.

    Parameters
    ----------
    names : sequence of str
        As the library spyndex has them, in any case: ndvi, ndwi, evi, nbr.
    bands : sequence of str
        Bands of the imagery.
    roles : mapping of str to str, optional
        Bands by role (red, nir, swir1), where their names do not say it.

    Raises
    ------
    ImageryError
        If an index or a role is not known, or a band for a role is not there; names all three.
    """
    if not names and not roles:
        return ()
    # The catalogue takes a fifth of a second to load; few jobs need it.
    import spyndex  # type: ignore[import-untyped]

    stated = _stated(roles or {}, bands)
    known: dict[str, str] = {}
    for key in spyndex.indices:
        known.setdefault(key.lower(), key)
    found = []
    for name in dict.fromkeys(n.lower() for n in names):
        if name not in known:
            raise ImageryError(f"indices: no index '{name}' is known{nearest(name, known)}")
        same = next((b for b in bands if b.lower() == name), None)
        if same is not None:
            raise ImageryError(
                f"indices: the imagery has a band '{same}' already; leave the index out, or name the band otherwise"
            )
        # Two pairs of names differ in their case alone; as they stand in the list is what is meant then.
        key = next((n for n in names if n.lower() == name and n in spyndex.indices), known[name])
        entry = spyndex.indices[key]
        inputs, constants = [], []
        for sign in entry.bands:
            if sign in _BY_SIGN:
                inputs.append((sign, _band(_BY_SIGN[sign], name, bands, stated)))
                continue
            default = spyndex.constants[sign].default if sign in spyndex.constants else None
            value = _CONSTANTS.get(key, {}).get(sign, default)
            if value is None:
                raise ImageryError(
                    f"indices: '{name}' needs '{sign}', which is no band and has no usual value; leave it out"
                )
            constants.append((sign, float(value)))
        found.append(Index(name, str(entry.formula), tuple(inputs), tuple(constants)))
    return tuple(found)


def appended(values: Array, bands: Sequence[str], indices: Sequence[Index]) -> Array:
    """Return values (C, ...) float32 of bands with indices behind them, NaN where an index is not defined."""
    planes = dict(zip(bands, values, strict=True))
    found = [index.of(planes).astype(np.float32) for index in indices]
    return np.stack([*values, *(np.where(np.isfinite(f), f, np.float32(np.nan)) for f in found)]) if found else values


def _stated(roles: Mapping[str, str], bands: Sequence[str]) -> dict[str, str]:
    for role, band in roles.items():
        if role not in _ROLES:
            raise ImageryError(f"roles: no role '{role}'{nearest(role, _ROLES)}; there are: {', '.join(_ROLES)}")
        if band not in bands:
            raise ImageryError(
                f"roles.{role}: the imagery has no band '{band}'{nearest(band, bands)}; it has: {', '.join(bands)}"
            )
    return dict(roles)


def _band(role: str, index: str, bands: Sequence[str], stated: Mapping[str, str]) -> str:
    """Return the band that has a role: the stated one, else the first whose name says so."""
    if role in stated:
        return stated[role]
    by_name: dict[str, str] = {}
    for band in bands:
        by_name.setdefault(band.lower(), band)
    for name in _ROLES[role][1]:
        if name in by_name:
            return by_name[name]
    raise ImageryError(
        f"indices: '{index}' needs the role {role}, and no band is called so; there are: {', '.join(bands)}. Say which it is: "
        f"roles: {{{role}: {bands[0]}}}"
    )
