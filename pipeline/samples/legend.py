"""The one mapping of label value, class code, class index, name and colour."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np

from pipeline.errors import LabelError, nearest
from pipeline.settings import ClassSettings

# Colours that a reader of maps expects, by words in the class's name; the first that matches counts.
_EXPECTED = (
    (r"water|river|lake|sea|ocean|reservoir", "#2b83ba"),
    (r"mangrove|wetland|swamp|marsh|bog", "#3f9b9b"),
    (r"snow|ice|glacier", "#e8f4fa"),
    (r"cloud", "#cccccc"),
    (r"urban|built|town|city|settle|village|artificial|impervious|road", "#d7301f"),
    (r"shrub|scrub|cerrado|savanna|bush", "#a6a84b"),
    (r"forest|wood|tree|jungle", "#1b7837"),
    (r"grass|pasture|meadow|herb|range", "#a6d96a"),
    (r"bare|barren|sand|rock|soil|desert|cleared|fallow", "#c2a477"),
    (r"crop|field|cultivat|arable|agri|farm|soy|corn|maize|wheat|rice|cotton", "#e6c229"),
)
# Distinct for the rest, and for the second class of a kind (after Paul Tol's schemes, safe for most colour-blind eyes).
_DISTINCT = (
    "#ee8866", "#77aadd", "#bbcc33", "#aa4499", "#44bb99", "#ffaabb", "#882255", "#999933", "#332288", "#117733",
    "#cc6677", "#88ccee", "#ddcc77", "#6699cc", "#994455", "#997700", "#004488", "#ee99aa", "#eecc66", "#dddddd",
)  # fmt: skip
# Codes above are no longer uint16 beside a nodata value.
_LAST_CODE = 65534


@dataclass(frozen=True, slots=True, kw_only=True)
class LegendClass:
    """One class.

    Attributes
    ----------
    name : str
        Shown in legends.
    code : int
        Value in the class map.
    color : str
        ``#rrggbb``.
    values : tuple of str
        Label values that mean it.
    """

    name: str
    code: int
    color: str
    values: tuple[str, ...]


@dataclass(frozen=True)
class Legend:
    """The classes of a map; their order is the order of class indices."""

    classes: tuple[LegendClass, ...]

    def __post_init__(self) -> None:
        listed: list[tuple[str, list[Any]]] = [
            ("name", [c.name for c in self.classes]),
            ("code", [c.code for c in self.classes]),
            ("label value", [v for c in self.classes for v in c.values]),
        ]
        for what, found in listed:
            twice = [v for v in dict.fromkeys(found) if found.count(v) > 1]
            if twice:
                raise LabelError(f"classes: the {what} {twice[0]!r} stands for two classes; give each its own")

    @classmethod
    def from_values(cls, values: Iterable[Any], settings: Sequence[ClassSettings] | None) -> Legend:
        """Return the legend of label values.

        Without settings every value is a class, in natural order; values that are all codes (1 to 254) keep them.

        Raises
        ------
        LabelError
            If a name, a code or a label value stands for two classes, or there are more classes than codes.
        """
        found = sorted({text_of(v) for v in values}, key=natural)
        if len(found if settings is None else settings) > _LAST_CODE:
            raise LabelError(
                f"the labels have {len(found)} different values, from '{found[0]}' to '{found[-1]}'; a map holds "
                f"{_LAST_CODE} classes at most: is this the field with the class?"
            )
        if settings is None:
            codes = [int(v) if v.isdecimal() and 1 <= int(v) <= 254 else 0 for v in found]
            if not all(codes) or len(set(codes)) < len(codes):
                codes = list(range(1, len(found) + 1))
            colors = palette(found)
            return cls(
                tuple(
                    LegendClass(name=v, code=code, color=color, values=(v,))
                    for v, code, color in zip(found, codes, colors, strict=True)
                )
            )
        taken = {c.code for c in settings if c.code is not None}
        free = (i for i in range(1, _LAST_CODE + 1) if i not in taken)
        colors = palette([c.name for c in settings], [c.color for c in settings if c.color])
        return cls(
            tuple(
                LegendClass(
                    name=c.name,
                    code=c.code if c.code is not None else next(free),
                    color=c.color or color,
                    values=tuple(text_of(v) for v in c.labels) if c.labels is not None else (c.name,),
                )
                for c, color in zip(settings, colors, strict=True)
            )
        )

    @cached_property
    def _index(self) -> dict[str, int]:
        return {v: i for i, c in enumerate(self.classes) for v in c.values}

    def index(self, value: Any) -> int | None:
        """Return the class index of a label value, or None if no class has it."""
        return self._index.get(text_of(value))

    def unknown(self, value: Any) -> str:
        """Return a sentence about a value that no class has."""
        return f"'{text_of(value)}'{nearest(text_of(value), self._index)}"

    @property
    def codes(self) -> np.ndarray[Any, Any]:
        """Code of each class index, (K,) int64."""
        return np.array([c.code for c in self.classes], dtype=np.int64)

    @property
    def nodata(self) -> int:
        """A code that no class uses: 0 if it is free, else the largest of the type."""
        codes = {c.code for c in self.classes}
        return 0 if 0 not in codes else 255 if self.dtype == "uint8" else 65535

    @property
    def dtype(self) -> str:
        """Type of the class map: uint8 while codes fit beside nodata, else uint16."""
        codes = [c.code for c in self.classes]
        return "uint8" if max(codes) <= (254 if 0 in codes else 255) else "uint16"

    def to_json(self) -> list[dict[str, Any]]:
        """Return the classes as plain values."""
        return [asdict(c) | {"values": list(c.values)} for c in self.classes]

    @classmethod
    def from_json(cls, value: Sequence[dict[str, Any]]) -> Legend:
        """Return the legend of plain values."""
        return cls(tuple(LegendClass(**(c | {"values": tuple(c["values"])})) for c in value))


def text_of(value: Any) -> str:
    """Return a label value as text; whole numbers have no decimals, however a file stores them."""
    if isinstance(value, float | np.floating) and float(value).is_integer():
        return str(int(value))
    return str(value).strip()


def natural(text: str) -> list[tuple[int, Any]]:
    """Return a key that sorts as people do: numbers inside a text by their size."""
    return [(0, int(part)) if part.isdecimal() else (1, part.lower()) for part in re.split(r"(\d+)", text) if part]


def palette(names: Sequence[str], taken: Sequence[str] = ()) -> list[str]:
    """Return a colour for each class, none of ``taken``: what a reader expects of its name, else one of a distinct set."""
    colors: list[str] = []
    used = {color.lower() for color in taken}
    rest = iter(_DISTINCT)
    for name in names:
        expected = next((c for words, c in _EXPECTED if re.search(words, name, re.IGNORECASE)), None)
        if expected is None or expected in colors or expected in used:
            expected = next((c for c in rest if c not in colors and c not in used), None)
        colors.append(expected or _invented(len(colors)))
    return colors


def _invented(i: int) -> str:
    """Return a colour for legends of more classes than people can tell apart: hues by the golden angle."""
    import colorsys

    r, g, b = colorsys.hls_to_rgb(i * 0.381966 % 1, 0.45 + 0.2 * (i % 2), 0.6)
    return f"#{round(255 * r):02x}{round(255 * g):02x}{round(255 * b):02x}"
