"""What the task of a block takes in memory, and what files hold of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from models.inference import activation_bytes, slab_bytes
from models.saliency.methods import BY_GRADIENT
from pipeline.imagery.facts import Known

if TYPE_CHECKING:
    from models.network import Network
    from models.saliency.methods import Explainer
    from pipeline.imagery.cube import Cube

# What the heap of a thread loses between tensors: half of what they take, measured 0.3 to 0.6. Tensors beyond 32 MiB are
# pages of their own and leave no gaps, so it does not grow for ever.
_GAPS, _MOST_GAPS = 0.5, 128 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """The most bytes alive at once in the task of a block.

    Attributes
    ----------
    reading, computing, making : float
        Per pixel of the padded window: while its images are read; while the network or an explanation is at work; while
        layers are made of that and written.
    slab : float
        Beside these, where single pixels are computed in slabs.
    device : float
        Of what computing takes, the bytes that lie on an accelerator, per pixel; 0 where there is none.
    """

    reading: float
    computing: float
    making: float
    slab: float
    device: float

    @property
    def pixel(self) -> float:
        """Bytes per pixel of the padded window."""
        return max(self.reading, self.computing, self.making)

    def block(self, side: int) -> float:
        """Return the bytes of one task on a padded window of so many pixels a side, gaps between them included."""
        return self.held(side) + self.gaps(side)

    def held(self, side: int) -> float:
        """Return the bytes of the arrays and tensors themselves."""
        return self.pixel * side**2 + self.slab

    def gaps(self, side: int) -> float:
        """Return what the heap loses between them."""
        return min(_GAPS * self.held(side), _MOST_GAPS)


def needs_of(network: Network, cube: Cube, explainers: Sequence[Explainer], stored: float) -> Needs:
    """Return what a block takes; ``stored`` is what its layers take per pixel."""
    dates, bands = cube.shape[:2]
    accelerated = torch.cuda.is_available()
    # What was read stays while the network is at work on its normalised copy; slabs are cut from both, and counted so.
    values = 4.0 * dates * bands + dates
    kept = 0.0 if network.pixelwise else values
    computing = kept + max(
        activation_bytes(network, gradient=False), *(e.bytes_per_pixel(network) for e in explainers), 0.0
    )
    gradient = any(e.method in BY_GRADIENT for e in explainers)
    # Scores, their probabilities here and there, the class; layers as numbers, as they are stored, and read back.
    making = 2 * values + 12 * network.outputs + 32 + 3 * stored
    return Needs(
        reading=4.0 * cube.planes + 2 * dates * bands,
        computing=2 * values if accelerated else computing,
        making=making,
        slab=0.0
        if accelerated
        else max(slab_bytes(network, gradient=False), gradient * slab_bytes(network, gradient=True)),
        device=computing if accelerated else 0.0,
    )


def stored_bytes(cube: Cube) -> float:
    """Return what files store of a pixel of the grid, over all dates; of bands by one name the first file tells the type."""
    wanted = {*cube.bands, *(band for index in cube.indices for band in index.bands)}
    first: dict[str, tuple[str, int]] = {}
    for source in cube.sources:
        for band, index in zip(source.bands, source.indexes, strict=True):
            if band in wanted:
                first.setdefault(band, (source.path, index))
    known = Known()
    size = sum(np.dtype(known[path].dtypes[index - 1]).itemsize for path, index in first.values())
    return float(len(cube.observed) * size)


def files_size(cube: Cube) -> int:
    """Return the bytes of the files a cube is read from, masks included, as they lie here; of addresses they are not asked."""
    paths = {path for s in cube.sources for path in (s.path, s.mask.path if s.mask is not None else s.path)}
    return sum(Path(p).stat().st_size for p in paths if Path(p).is_file())
