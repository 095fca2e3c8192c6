"""A device that cannot hold a batch: it is divided, and the parts make one step together."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from models.files import whole
from models.keeper import STATE
from models.launching import enrolled
from models.network import ModelError
from models.ranks import RankError
from models.settings import TrainingSettings

DIVISION = "division.json"


class Division:
    """In how many parts each batch is divided; kept beside the checkpoint, for a training that goes on later.

    The data module divides its batches, by a method ``divide(parts)`` that returns whether it can.

    Parameters
    ----------
    data : LightningDataModule
        Whose batches are divided.
    folder : Path
        Of the training.
    """

    def __init__(self, data: Any, folder: Path) -> None:
        self.data = data
        self.path = folder / DIVISION
        self.parts = int(json.loads(self.path.read_text())["parts"]) if self.path.is_file() else 1
        if self.parts > 1:
            self.data.divide(self.parts)

    def of(self, settings: TrainingSettings) -> TrainingSettings:
        """Return the settings by which the parts make one step."""
        return settings.model_copy(update={"accumulate": settings.accumulate * self.parts})

    def halve(self, last: Path, error: torch.OutOfMemoryError) -> None:
        """Divide batches in twice as many parts.

        Raises
        ------
        ModelError
            If they cannot be divided further.
        """
        outside = enrolled()
        if outside is not None:
            raise RankError(
                f"training ran out of memory, and processes that {outside.launcher} has started cannot begin again by "
                "themselves; set training.batch_size lower and training.accumulate higher"
            ) from error
        if not hasattr(self.data, "divide") or not self.data.divide(2 * self.parts):
            raise ModelError(
                "training ran out of memory with batches that cannot be halved any more; a smaller network, smaller chips "
                f"(chips.size) or a device with more memory is needed ({str(error).partition(chr(10))[0]})"
            ) from error
        self.parts *= 2
        if last.is_file():
            _doubled(last)
        with whole(self.path) as temporary:
            temporary.write_text(json.dumps({"parts": self.parts}))
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def notes(self, settings: TrainingSettings) -> list[str]:
        """Return what the user is to be told."""
        if self.parts == 1:
            return []
        return [
            f"out of memory: each batch was divided in {self.parts}, and {self.parts * settings.accumulate} make a step "
            "together, as large as before; training.batch_size and training.accumulate can say so"
        ]


def _doubled(last: Path) -> None:
    """Count the batches of an epoch that was interrupted as twice as many halves."""
    state = torch.load(last, map_location="cpu", weights_only=True)
    step = state["callbacks"][STATE]["step"]
    if not step:
        return
    state["callbacks"][STATE]["step"] = 2 * step
    # Saved at the end of a batch, when Lightning has not yet counted it as completed.
    progress = state["loops"]["fit_loop"]["epoch_loop.batch_progress"]["current"]
    for name in progress:
        progress[name] += step
    with whole(last) as temporary:
        torch.save(state, temporary)
