"""A toy to learn from, and trainings of it that can be killed."""

from __future__ import annotations

import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader

from models.settings import TrainingSettings
from models.table import build
from models.tasks import ClassificationTask
from models.training import fit


class Toy(LightningDataModule):
    """Three classes by two of three bands, in patches; a third of the pixels has no label."""

    def __init__(self, n=24, side=16, *, val=True, noise=0.0, size=4):
        super().__init__()
        g = torch.Generator().manual_seed(1)
        patches = torch.randn(n, 1, 3, -(-side // 4), -(-side // 4), generator=g)
        cube = patches.repeat_interleave(4, -1).repeat_interleave(4, -2)[..., :side, :side].contiguous()
        labels = (cube[:, 0, 0] > 0).long() + (cube[:, 0, 1] > 0).long()
        wrong = torch.rand(labels.shape, generator=g) < noise
        labels[wrong] = torch.randint(3, (int(wrong.sum()),), generator=g)
        labels[torch.rand(labels.shape, generator=g) < 1 / 3] = -1
        valid = torch.ones(n, 1, side, side, dtype=torch.bool)
        self.items = [
            {"cube": cube[i], "valid": valid[i], "time": torch.zeros(1), "labels": labels[i]} for i in range(n)
        ]
        self.cut, self.val, self.size = n * 2 // 3, val, size

    def train_dataloader(self):
        return DataLoader(self.items[: self.cut], batch_size=self.size, shuffle=True)

    def val_dataloader(self):
        return DataLoader(self.items[self.cut :], batch_size=7) if self.val else []


def train(
    folder, *, name="mlp", data=None, network=None, seed=0, progress=None, stop_after=None, resume=True, **options
):
    settings = TrainingSettings(**{"epochs": 4, "track": ["csv"], "seed": seed} | options)
    torch.manual_seed(seed)
    task = ClassificationTask(
        build(name, network or {}, bands=3, dates=1, classes=3), classes=3, settings=settings, counts=[1, 2, 1]
    )
    data = data or Toy()
    result = fit(task, data, folder, settings, stop_after=stop_after, progress=progress, resume=resume)
    return task, result


def weights(task):
    return torch.cat([v.flatten().float() for v in task.network.state_dict().values()])


class KilledError(Exception):
    pass


def killer(after):
    def progress(epoch, epochs, figures):
        if epoch == after:
            raise KilledError

    return progress
