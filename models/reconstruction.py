"""Learning without labels: the Lightning module of reconstruction."""

from __future__ import annotations

from torch import Tensor

from models.learning import Batch, LearningTask
from models.losses import IGNORE
from models.network import masked
from models.networks.coding import CodingNetwork
from models.settings import TrainingSettings


class ReconstructionTask(LearningTask):
    """Learn to give back the valid values of the cube.

    The loss is the mean of squared errors, in squared standard deviations of the bands, with what the code itself costs
    (`CodingNetwork.penalty`). Where batches hold ``labels`` (B, H, W), pixels with `IGNORE` are seen but do not count: so
    training and validation places are told apart. Validation is deterministic: nothing is corrupted or drawn, and all
    values count.

    Parameters
    ----------
    network : CodingNetwork
        What learns; made for no classes.
    settings : TrainingSettings
        Optimiser and schedule.
    """

    network: CodingNetwork

    def __init__(self, network: CodingNetwork, settings: TrainingSettings) -> None:
        if network.classes:
            raise ValueError(f"the network '{network.name}' was made for {network.classes} classes: it has no decoder")
        super().__init__(network, settings)

    def loss(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the summed squared errors and costs, and the number of values that count."""
        cube, valid = masked(batch["cube"], batch["valid"]), batch["valid"]
        counts = valid & (batch["labels"] != IGNORE)[:, None] if "labels" in batch else valid  # (B, T, H, W)
        wanted = counts[:, :, None].expand_as(cube)
        if self.training:
            shown, flags, guessed = self.network.corrupt(cube, valid)
            wanted = wanted & guessed
        else:
            shown, flags = cube, valid
        encoded = self.network.encode(shown, flags)
        off = self.network.decode(self.network.code(encoded)).float() - cube
        total = off.square().masked_fill(~wanted, 0.0).sum()
        penalty = self.network.penalty(encoded, self.current_epoch if self.training else None)
        if penalty is not None:
            total = total + penalty.masked_fill(~counts.any(1), 0.0).sum()
        return total, wanted.sum()
