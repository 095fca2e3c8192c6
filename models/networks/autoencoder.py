"""An autoencoder: plain, denoising or masked."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from models.network import ModelError, masked
from models.networks.coding import CodingNetwork, CodingSettings

_SQUARE = 4  # side of what is hidden of land, in cells of the code


class AutoencoderSettings(CodingSettings):
    """Settings of the autoencoder."""

    corruption: Literal["none", "noise", "mask"] = Field(
        "none",
        description="What is done to the input while learning without labels. none: it is shown as it is. noise: normal "
        "noise is added, and the clean values are to be found. mask: a part is hidden, and only the hidden values count: "
        "dates of a series, bands where there is one date, squares of land.",
    )
    share: float = Field(
        0.3,
        gt=0,
        lt=1,
        description="How much is corrupted. noise: its standard deviation as a share of each band's; mask: the share that is "
        "hidden.",
    )


class Autoencoder(CodingNetwork):
    """Autoencoder: gives pixels or chips back through a narrow code, learnt without labels.

    After Hinton and Salakhutdinov (2006). What is unlike the land it learnt from comes back badly, and the code serves as
    an embedding: to be clustered, or as the start of a network for classes. A code of good use needs more than being
    narrow: it may also have to undo noise (Vincent et al. 2010), or to guess what is hidden from it (He et al. 2022).
    """

    name = "autoencoder"
    Settings = AutoencoderSettings
    settings: AutoencoderSettings

    def __init__(self, settings: AutoencoderSettings, *, bands: int, dates: int, classes: int) -> None:
        super().__init__(settings, bands=bands, dates=dates, classes=classes)
        values = dates * bands * self.stride**2
        if not classes and settings.corruption == "none" and self.features >= values:
            raise ModelError(
                f"model.code: found {settings.code}, {self.features} numbers for {values} values, which the network "
                f"'{self.name}' could simply copy; a smaller code, or model.corruption noise or mask, makes it learn"
            )

    def corrupt(self, cube: Tensor, valid: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Add noise, or hide a part; drawn from torch's global generator."""
        everything = torch.ones_like(cube, dtype=torch.bool)
        kind, share = self.settings.corruption, self.settings.share
        if kind == "none":
            return cube, valid, everything
        if kind == "noise":
            return masked(cube, valid) + share * torch.randn_like(cube), valid, everything
        b, t, _, h, w = cube.shape
        if self.pixelwise and t == 1:
            # Bands have no flags of their own: a hidden one is shown as an average one (masking noise of Vincent et al.).
            hidden = torch.rand_like(cube) < share
            return cube.masked_fill(hidden, 0.0), valid, hidden
        side = 1 if self.pixelwise else _SQUARE * self.stride
        cells = torch.rand(b, t, -(-h // side), -(-w // side), device=cube.device) < share
        squares = cells.repeat_interleave(side, 2).repeat_interleave(side, 3)[..., :h, :w]  # (B, T, H, W)
        return cube, valid & ~squares, squares[:, :, None].expand_as(cube)

    def penalty(self, encoded: Tensor, epoch: int | None = None) -> Tensor | None:  # noqa: ARG002 - the contract's
        """Return None: a code costs nothing."""
        return None
