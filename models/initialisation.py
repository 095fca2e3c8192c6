"""The weights that a network starts from."""

from __future__ import annotations

from torch import nn

from models.settings import Initialisation

_NORMAL = 0.02  # standard deviation of plain normal weights, as Radford et al. (2016) draw them
_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


def initialise(network: nn.Module, kind: Initialisation) -> None:
    """Draw the weights of linear and convolutional layers anew, from torch's global generator; their biases become zero.

    What is no such layer (recurrent cells, attention, normalisation) keeps what its own paper wants.

    Parameters
    ----------
    network : Module
        Its weights are replaced in place.
    kind : str
        ``auto`` leaves torch's own. With n inputs and m outputs of a unit, weights are normal with variance
        2 / n (``kaiming``: He et al. 2015), 2 / (n + m) (``xavier``: Glorot and Bengio 2010) or 0.02^2 (``normal``).
    """
    if kind == "auto":
        return
    for module in network.modules():
        if not isinstance(module, _LAYERS):
            continue
        if kind == "kaiming":
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        elif kind == "xavier":
            nn.init.xavier_normal_(module.weight)
        else:
            nn.init.normal_(module.weight, std=_NORMAL)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
