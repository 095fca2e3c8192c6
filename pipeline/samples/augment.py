"""Random changes to training samples: a whole batch at once, and what belongs together is changed together.

All chance comes from a generator that is given, one for each batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.samples.labels import IGNORE

Batch = dict[str, Tensor]

_ZOOM = 1.25  # scale: a chip is shown at most so many times as large, or as small
_GAIN, _OFFSET = (
    0.1,
    0.1,
)  # radiometric: deviations of the gain and of the offset of a band, in standard deviations of it
_DAYS = 15  # shift: most days by which the dates of a series are moved
_DROP = 0.2  # drop: the chance of a date to be left out
_NOISE = 0.05  # noise: its deviation, in standard deviations of a band


def augmented(batch: Batch, names: Sequence[str], generator: torch.Generator) -> Batch:
    """Return a batch with random changes.

    Parameters
    ----------
    batch : dict of Tensor
        ``cube`` (B, T, C, S, S) normalised, zero where not valid; ``valid`` (B, T, S, S); ``time`` (B, T); and what is
        known of the pixels, (B, ..., S, S), such as ``labels``.
    names : sequence of str
        Which ones: ``flip``, ``rotate``, ``scale``, ``radiometric``, ``shift``, ``drop``, ``noise``. On single pixels, flip,
        rotate and scale do nothing.
    generator : torch.Generator
        Where all chance comes from: the same seed makes the same changes.
    """
    side = batch["cube"].shape[-1]
    if side > 1 and {"flip", "rotate"} & set(names):
        batch = _turned(batch, generator, flip="flip" in names, rotate="rotate" in names)
    if side > 1 and "scale" in names:
        batch = _scaled(batch, generator)
    for name, change in _OF_VALUES.items():
        if name in names:
            batch = change(batch, generator)
    return batch


def _turned(batch: Batch, generator: torch.Generator, *, flip: bool, rotate: bool) -> Batch:
    """Turn by quarters and mirror each chip by chance."""
    n = len(batch["cube"])
    turns = torch.randint(4, (n,), generator=generator) if rotate else torch.zeros(n, dtype=torch.long)
    mirror = torch.rand(n, generator=generator) < 0.5 if flip else torch.zeros(n, dtype=torch.bool)
    made = dict(batch)
    for name in _spatial(batch):
        plain = batch[name].numpy()
        turned = np.empty_like(plain)
        for into, chip, k, m in zip(turned, plain, turns.tolist(), mirror.tolist(), strict=True):
            # Views in numpy: each chip is copied once.
            view = np.rot90(chip, k, (-2, -1))
            into[...] = view[..., ::-1] if m else view
        made[name] = torch.from_numpy(turned)
    return made


def _scaled(batch: Batch, generator: torch.Generator) -> Batch:
    """Show each chip larger or smaller about its centre: as often the one as the other.

    A pixel takes its label and its validity from the nearest pixel of the chip, and its values from the four around it,
    weighted as is usual (bilinear), those that are not valid left out. Beyond the chip nothing is valid, nor known. The
    centre of a chip of odd side stays what it is.
    """
    cube, valid = batch["cube"], batch["valid"]
    n, side = len(cube), cube.shape[-1]
    factor = _ZOOM ** (2 * torch.rand(n, generator=generator) - 1)
    centre = (side - 1) / 2
    source = centre + (torch.arange(side) - centre) / factor[:, None]  # (B, S): where a row, or a column, comes from
    nearest = (source + 0.5).floor().long()
    inside = (nearest >= 0) & (nearest < side)
    within = inside[:, :, None] & inside[:, None, :]  # (B, S, S)
    row, column = nearest.clamp(0, side - 1)[:, :, None], nearest.clamp(0, side - 1)[:, None, :]
    chip = torch.arange(n)[:, None, None]
    made = dict(batch)
    for name in _spatial(batch):
        value = batch[name]
        if name != "cube":
            flat = value.reshape(n, -1, side, side).movedim(1, -1)[chip, row, column].movedim(-1, 1)
            made[name] = _where(within, flat.reshape(value.shape), _unknown(value))
    place = 2 * source / (side - 1) - 1
    grid = torch.stack(
        [place[:, None, :].expand(n, side, side), place[:, :, None].expand(n, side, side)], dim=-1
    )  # x before y
    found = F.grid_sample(cube.flatten(1, 2), grid, align_corners=True).reshape(cube.shape)
    weight = F.grid_sample(valid.to(cube.dtype), grid, align_corners=True)[:, :, None]
    kept = made["valid"][:, :, None]
    # What is kept has its nearest neighbour among the four, which weighs a quarter or more.
    made["cube"] = torch.where(kept, found / weight.clamp(min=0.25), 0.0)
    return made


def _radiometric(batch: Batch, generator: torch.Generator) -> Batch:
    """Give each band of a sample a gain and an offset of its own, the same at all dates."""
    n, _, bands = batch["cube"].shape[:3]
    gain = 1 + _GAIN * torch.randn(n, 1, bands, 1, 1, generator=generator)
    offset = _OFFSET * torch.randn(n, 1, bands, 1, 1, generator=generator)
    return batch | {"cube": _seen(batch["cube"] * gain + offset, batch["valid"])}


def _noisy(batch: Batch, generator: torch.Generator) -> Batch:
    """Add normal noise to each value by itself."""
    noise = _NOISE * torch.randn(batch["cube"].shape, generator=generator)
    return batch | {"cube": _seen(batch["cube"] + noise, batch["valid"])}


def _shifted(batch: Batch, generator: torch.Generator) -> Batch:
    """Move all dates of a sample by the same number of whole days: an early season, or a late one."""
    days = torch.randint(-_DAYS, _DAYS + 1, (len(batch["time"]), 1), generator=generator)
    return batch | {"time": batch["time"] + days}


def _dropped(batch: Batch, generator: torch.Generator) -> Batch:
    """Leave dates of a sample out by chance; one of those with data stays. Where no date is left, no label is either."""
    valid = batch["valid"]
    present = valid.flatten(2).any(2)  # (B, T)
    # Of all dates with data, the one with the highest draw stays whatever comes.
    draw = torch.rand(present.shape, generator=generator).masked_fill(~present, -1.0)
    kept = (draw >= _DROP) | (draw == draw.amax(1, keepdim=True))
    made = batch | {"valid": valid & kept[:, :, None, None]}
    made["cube"] = _seen(batch["cube"], made["valid"])
    lost = valid.any(1) & ~made["valid"].any(1)  # (B, S, S)
    for name in _spatial(batch):
        if name not in ("cube", "valid"):
            made[name] = _where(~lost, made[name], _unknown(made[name]))
    return made


_OF_VALUES: dict[str, Callable[[Batch, torch.Generator], Batch]] = {
    "radiometric": _radiometric,
    "noise": _noisy,
    "shift": _shifted,
    "drop": _dropped,
}


def _spatial(batch: Batch) -> list[str]:
    """Return the names of what lies on the pixels of a chip."""
    size = batch["cube"].shape[-2:]
    return [name for name, value in batch.items() if value.ndim > 2 and value.shape[-2:] == size]


def _seen(cube: Tensor, valid: Tensor) -> Tensor:
    return cube.masked_fill(~valid[:, :, None], 0.0)


def _where(known: Tensor, value: Tensor, other: float) -> Tensor:
    """Return a value (B, ..., S, S) where it is known (B, S, S), another elsewhere."""
    between = (1,) * (value.ndim - known.ndim)
    return value.masked_fill(~known.reshape(len(known), *between, *known.shape[1:]), other)


def _unknown(value: Tensor) -> float:
    """Return what stands for nothing: no validity, no label, no number."""
    if value.dtype == torch.bool:
        return False
    return float("nan") if value.is_floating_point() else IGNORE
