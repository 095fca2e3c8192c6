"""Windows, blocks and the block grid: integer arithmetic over an `odc.geo.geobox.GeoBox`, with no file and no Dask."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from odc.geo.geobox import GeoBox
from rasterio.windows import Window as RasterioWindow


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """A rectangle of pixels on the grid; it may lie partly or wholly outside the raster.

    Attributes
    ----------
    y, x : int
        Row and column of the upper left pixel; negative above or left of the grid.
    height, width : int
        Rows and columns; at least one each.
    """

    y: int
    x: int
    height: int
    width: int

    def __post_init__(self) -> None:
        if self.height < 1 or self.width < 1:
            raise ValueError(f"a window needs at least one row and one column, got {self.height} x {self.width}")

    @property
    def bottom(self) -> int:
        """Row after the last one."""
        return self.y + self.height

    @property
    def right(self) -> int:
        """Column after the last one."""
        return self.x + self.width

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.height, self.width

    @property
    def pixels(self) -> int:
        """Number of pixels."""
        return self.height * self.width

    def pad(self, margin: int) -> Window:
        """Return the window grown (or, if negative, shrunk) by ``margin`` pixels on each side."""
        return Window(
            y=self.y - margin, x=self.x - margin, height=self.height + 2 * margin, width=self.width + 2 * margin
        )

    def intersect(self, other: Window) -> Window | None:
        """Return the part that both windows share, or None."""
        y, x = max(self.y, other.y), max(self.x, other.x)
        bottom, right = min(self.bottom, other.bottom), min(self.right, other.right)
        return Window(y=y, x=x, height=bottom - y, width=right - x) if bottom > y and right > x else None

    def within(self, outer: Window) -> tuple[slice, slice]:
        """Return the row and column slices of this window in an array that covers ``outer``."""
        y, x = self.y - outer.y, self.x - outer.x
        if y < 0 or x < 0 or self.bottom > outer.bottom or self.right > outer.right:
            raise ValueError(f"{self} does not lie within {outer}")
        return slice(y, y + self.height), slice(x, x + self.width)

    def to_rasterio(self) -> RasterioWindow:
        """Return the same rectangle as a rasterio window (column first)."""
        return RasterioWindow(self.x, self.y, self.width, self.height)

    def __str__(self) -> str:
        return f"rows {self.y}..{self.bottom - 1}, columns {self.x}..{self.right - 1}"


def whole(geobox: GeoBox) -> Window:
    """Return the window that covers the grid."""
    return Window(y=0, x=0, height=int(geobox.shape.y), width=int(geobox.shape.x))


def window_geobox(geobox: GeoBox, window: Window) -> GeoBox:
    """Return the grid of a window, which may reach outside the raster: the plane goes on."""
    return GeoBox(window.shape, geobox.translate_pix(window.x, window.y).affine, geobox.crs)


def wkt(geobox: GeoBox) -> str:
    """Return the CRS of a grid as WKT; every grid of landweave has one."""
    if geobox.crs is None:
        raise ValueError("the grid has no CRS")
    return str(geobox.crs.to_wkt())


def crs_name(geobox: GeoBox) -> str:
    """Return what people call the CRS of a grid: its EPSG code, else its name."""
    if geobox.crs is None:
        raise ValueError("the grid has no CRS")
    return f"EPSG:{geobox.crs.epsg}" if geobox.crs.epsg else str(geobox.crs.proj.name)


def round_up(value: int, step: int) -> int:
    """Return the smallest multiple of ``step`` that is at least ``value``."""
    return -(-value // step) * step


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """One unit of mapping work.

    Attributes
    ----------
    index : int
        Place in the block grid, row by row.
    core : Window
        The pixels this block answers for. Always of full size: at the lower and right border it reaches beyond the raster.
    inner : Window
        The part of the core inside the raster: what is written.
    halo : int
        Context pixels to be read around the core.
    """

    index: int
    core: Window
    inner: Window
    halo: int

    @property
    def padded(self) -> Window:
        """The window to be read: the core with the halo around it. Of the same size for every block of a grid."""
        return self.core.pad(self.halo)


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockGrid:
    """Blocks whose cores partition a grid exactly.

    Attributes
    ----------
    geobox : GeoBox
        The output grid.
    size : int
        Side of a core in pixels; a multiple of ``stride``.
    halo : int
        Context pixels around each core; a multiple of ``stride``.
    stride : int
        Step to which the origins of cores and of padded windows are aligned.
    """

    geobox: GeoBox
    size: int
    halo: int = 0
    stride: int = 1

    def __post_init__(self) -> None:
        for name, value, least in (("size", self.size, 1), ("halo", self.halo, 0), ("stride", self.stride, 1)):
            if value < least:
                raise ValueError(f"{name} must be at least {least}, got {value}")
        for name, value in (("size", self.size), ("halo", self.halo)):
            if value % self.stride:
                raise ValueError(f"{name} must be a multiple of the stride {self.stride}, got {value}")

    @property
    def rows(self) -> int:
        """Number of block rows."""
        return -(-int(self.geobox.shape.y) // self.size)

    @property
    def columns(self) -> int:
        """Number of block columns."""
        return -(-int(self.geobox.shape.x) // self.size)

    def __len__(self) -> int:
        return self.rows * self.columns

    def __getitem__(self, index: int) -> Block:
        if not 0 <= index < len(self):
            raise IndexError(f"block {index} of {len(self)}")
        row, column = divmod(index, self.columns)
        core = Window(y=row * self.size, x=column * self.size, height=self.size, width=self.size)
        inner = core.intersect(whole(self.geobox))
        assert inner is not None, "a core of the grid always meets the raster"
        return Block(index=index, core=core, inner=inner, halo=self.halo)

    def __iter__(self) -> Iterator[Block]:
        return (self[i] for i in range(len(self)))

    def covering(self, window: Window) -> Iterator[Block]:
        """Yield the blocks whose cores meet ``window``, row by row."""
        part = window.intersect(whole(self.geobox))
        if part is None:
            return
        for row in range(part.y // self.size, (part.bottom - 1) // self.size + 1):
            for column in range(part.x // self.size, (part.right - 1) // self.size + 1):
                yield self[row * self.columns + column]
