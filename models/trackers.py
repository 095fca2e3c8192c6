"""Where the figures of each epoch go."""

from __future__ import annotations

import csv
import importlib.util
import io
import os
from pathlib import Path
from typing import TYPE_CHECKING

from models.files import whole
from models.network import ModelError
from models.settings import TrainingSettings

if TYPE_CHECKING:
    from lightning.pytorch.loggers import Logger

_EXTRAS = ("wandb", "mlflow")


def loggers(settings: TrainingSettings, folder: Path) -> list[Logger]:
    """Return the trackers asked for; ``csv`` is none of them, see `write_metrics`.

    Raises
    ------
    ModelError
        If the package of one is not installed.
    """
    made: list[Logger] = []
    for name in settings.track:
        if name == "csv":
            continue
        if importlib.util.find_spec(name) is None:
            how = f"`pip install 'landweave[{name}]'`" if name in _EXTRAS else f"`pip install {name}`"
            raise ModelError(
                f"training.track: '{name}' needs the package {name}, which is not installed here; {how} installs it, or leave "
                f"'{name}' out"
            )
        from lightning.pytorch import loggers

        if name == "tensorboard":
            made.append(loggers.TensorBoardLogger(folder, name=None, version="tensorboard"))
        elif name == "wandb":
            # WANDB_MODE=offline keeps everything in the folder.
            made.append(loggers.WandbLogger(save_dir=folder, project="landweave"))
        else:
            where = os.environ.get("MLFLOW_TRACKING_URI")
            made.append(loggers.MLFlowLogger("landweave", tracking_uri=where, save_dir=str(folder / "mlflow")))
    return made


def write_metrics(path: Path, history: list[dict[str, float]]) -> None:
    """Write the figures of all epochs; the whole file each time, so a resumed training has no gap in it."""
    names = sorted({name for figures in history for name in figures})
    stream = io.StringIO()
    writer = csv.DictWriter(stream, ["epoch", *names], lineterminator="\n")
    writer.writeheader()
    writer.writerows({"epoch": epoch + 1} | figures for epoch, figures in enumerate(history))
    with whole(path) as temporary:
        temporary.write_text(stream.getvalue())
