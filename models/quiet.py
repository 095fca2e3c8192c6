"""What Lightning says of itself, kept from the user's terminal."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator

# What Lightning advises on, and what is so on purpose here.
_ADVICE = (
    ".*across ranks is zero.*",  # no validation fold: all labels train
    ".*LeafSpec.*is deprecated.*",  # Lightning 2.6 on torch 2.13
    ".*does not have many workers.*",  # chips are read in this process: starting others costs more than it saves
    ".*smaller than the logging interval.*",  # figures are logged by epoch
    ".*`training_step` returned `None`.*",  # a batch without labels makes no step
    ".*your dataloader is not resumable.*",  # the data module is told where to begin
    ".*was called before the ``update`` method.*",  # a rank may have no labelled pixel to validate with
    ".*`broadcast_buffers` is deprecated.*",  # its successor is not in all versions of torch that are allowed
    ".*sync_dist=True.*",  # figures are those of all ranks before they are logged
)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep Lightning's notes and advice from the user's terminal; the job's own progress stands there."""
    names = ("lightning.pytorch", "lightning.fabric")
    before = {name: logging.getLogger(name).level for name in names}
    for name in names:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            for pattern in _ADVICE:
                warnings.filterwarnings("ignore", pattern)
            yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)
