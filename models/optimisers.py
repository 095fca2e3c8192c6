"""Optimisers by name."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from models.settings import OptimizerSettings

_MAKE: dict[str, Callable[[Any, OptimizerSettings], torch.optim.Optimizer]] = {
    "adamw": lambda groups, _: torch.optim.AdamW(groups),
    "adam": lambda groups, _: torch.optim.Adam(groups),
    "nadam": lambda groups, _: torch.optim.NAdam(groups),
    "sgd": lambda groups, s: torch.optim.SGD(groups, momentum=s.momentum, nesterov=s.nesterov and s.momentum > 0),
    "rmsprop": lambda groups, _: torch.optim.RMSprop(groups),
    "adagrad": lambda groups, _: torch.optim.Adagrad(groups),
    "adadelta": lambda groups, _: torch.optim.Adadelta(groups),
}


def optimizer(network: nn.Module, settings: OptimizerSettings) -> torch.optim.Optimizer:
    """Return the optimiser of a network's weights."""
    assert settings.lr != "auto", "training finds the rate before it makes the optimiser"
    # Decay is for weights that multiply inputs; biases and normalisation would only be biased by it.
    groups = [
        {"params": list(weights(network)), "weight_decay": settings.weight_decay, "lr": settings.lr},
        {"params": [p for p in network.parameters() if p.ndim <= 1], "weight_decay": 0.0, "lr": settings.lr},
    ]
    return _MAKE[settings.name](groups, settings)


def weights(network: nn.Module) -> Iterable[nn.Parameter]:
    """Return what multiplies inputs: neither biases nor the factors of a normalisation."""
    return (p for p in network.parameters() if p.ndim > 1)
