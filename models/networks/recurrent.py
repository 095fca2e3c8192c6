"""Recurrent networks on the time series of single pixels."""

from __future__ import annotations

import contextlib
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from models.network import NetworkSettings, PixelNetwork, all_valid
from models.networks.layers import Dropout, Normalisation, Pool, Pooling, per_tile, year_cycle

_KEPT = 1 << 18  # states of all dates that one slab keeps for a gradient


class RecurrentSettings(NetworkSettings):
    """Settings of the recurrent networks."""

    hidden: int = Field(32, ge=1, le=1024, description="Size of the state, in each direction: 64 in all for both.")
    layers: int = Field(1, ge=1, le=8, description="Recurrent layers, one on the states of the other.")
    direction: Literal["forward", "both"] = Field(
        "both",
        description="forward: dates are read in their order. both: a second layer reads them backwards, so that each "
        "state knows what came before and after, as can be when the whole season is there; costs twice as much.",
    )
    pooling: Pool = Field(
        "max",
        description="What the scores are made from: max or mean of the states at all valid dates, the last state (with "
        "both directions: the last of each), or attention, a weighted mean with learnt weights. With max every "
        "date is one step from the scores, however long the series goes on behind it.",
    )
    normalisation: Normalisation = Field(
        "batch", description="Normalisation of what the scores are made from: batch or none."
    )
    dropout: Dropout = Field(
        0.5, description="Share of states left out in each step of training, between layers and before the scores."
    )


class _Recurrent(PixelNetwork):
    """A recurrent network that reads the valid dates of a pixel one after another.

    Beside the bands, each date brings the sine and cosine of its day of the year: states know how far the season is, and
    how long a gap was. A masked date is as if it were not there: the valid dates of each pixel are moved to the
    front, where the library's own fused layers read them, and what these make of the rest is not looked at.
    """

    Settings = RecurrentSettings
    settings: RecurrentSettings
    temporal = True
    fixed_dates = False
    slab = 1024  # what lies between the steps stays in a core's cache; with 8192 it takes a half longer

    cell: ClassVar[type[nn.RNN] | type[nn.LSTM] | type[nn.GRU]]

    def __init__(self, settings: RecurrentSettings, *, bands: int, dates: int, classes: int) -> None:
        super().__init__(settings, bands=bands, dates=dates, classes=classes)
        directions = 2 if settings.direction == "both" else 1
        states = directions * settings.hidden
        widths = [bands + 2] + [states] * (settings.layers - 1)
        self.forwards = nn.ModuleList(self._layer(width) for width in widths)
        self.backwards = nn.ModuleList(self._layer(width) for width in widths[: settings.layers * (directions - 1)])
        self.dropout = nn.Dropout(settings.dropout)
        self.pooling = Pooling(settings.pooling, states)
        self.normal = nn.BatchNorm1d(states) if settings.normalisation == "batch" else nn.Identity()
        self.head = nn.Linear(states, classes)

    def _layer(self, inputs: int) -> nn.RNNBase:
        return self.cell(inputs, self.settings.hidden, batch_first=True)

    def pixels(self, series: Tensor, valid: Tensor, time: Tensor) -> Tensor:
        """Return scores (N, K) of pixels (N, T, C)."""
        x = torch.cat([series, per_tile(year_cycle, time)], dim=-1)  # (N, T, C + 2)
        if not all_valid(valid):
            front = torch.argsort(torch.where(valid, 0, valid.shape[1]) + _places(valid), dim=1)
            x = _pick(x, front)  # (N, T): the valid dates, in order, then the others
            valid = valid.gather(1, front)
        states = self._states(x, valid)  # (N, T, hidden), or both directions side by side
        if self.settings.direction == "both" and self.settings.pooling == "last":
            ahead, back = states.chunk(2, dim=-1)
            # Reading backwards ends at the first valid date.
            found = torch.cat([self.pooling(ahead, valid), self.pooling(back[:, :1], valid[:, :1])], dim=-1)
        else:
            found = self.pooling(states, valid)
        scores: Tensor = self.head(self.dropout(self.normal(found)))
        return scores

    def _states(self, x: Tensor, valid: Tensor) -> Tensor:
        """Return the states at all dates, of which the first ``valid`` ones (N, T) are to be read."""
        mirror = _mirror(valid) if self.backwards else None
        with _differentiable(self, x):
            for i, ahead in enumerate(self.forwards):
                states, _ = ahead(x)
                if mirror is not None:
                    back, _ = self.backwards[i](_pick(x, mirror))
                    states = torch.cat([states, _pick(back, mirror)], dim=-1)
                x = self.dropout(states) if i + 1 < len(self.forwards) else states
        return x


class RNN(_Recurrent):
    """Elman's recurrent network (1990) with tanh: the simplest, the fastest, and short of memory over many dates."""

    name = "rnn"
    cell = nn.RNN


class LSTM(_Recurrent):
    """Long short-term memory (Hochreiter and Schmidhuber 1997): the usual strong baseline for time series.

    For crops from satellite series see Russwurm and Körner (2017). Forget gates start open (a bias of 1, Gers et al. 2000;
    Jozefowicz et al. 2015), so that early dates are remembered from the first step of training on.
    """

    name = "lstm"
    cell = nn.LSTM

    @property
    def gradient_slab(self) -> int:
        """So few that memory is used again from slab to slab.

        Where the library's layers keep more than some 60 MB for the way back, the allocator gives it back to the system
        each time, and every slab pays for fresh pages: with `slab` and 23 dates a gradient cost 4.1 forward passes,
        with these 2.6 to 2.9. Steps written out by hand, with no gradient of the weights, were not clearly faster.
        """
        states = self.settings.hidden * (len(self.forwards) + len(self.backwards))
        return max(16, min(self.slab, _KEPT // (self.dates * states)))

    def _layer(self, inputs: int) -> nn.RNNBase:
        layer = super()._layer(inputs)
        n = self.settings.hidden
        with torch.no_grad():  # gates are stacked as input, forget, cell, output; two biases are added up
            layer.get_parameter("bias_ih_l0")[n : 2 * n] = 1.0
            layer.get_parameter("bias_hh_l0")[n : 2 * n] = 0.0
        return layer


class GRU(_Recurrent):
    """Gated recurrent units (Cho et al. 2014): as the LSTM, with three gates in place of four and no separate memory."""

    name = "gru"
    cell = nn.GRU


def _pick(x: Tensor, order: Tensor) -> Tensor:
    """Return the dates of ``x`` (N, T, F) in each pixel's own order (N, T)."""
    return x.gather(1, order[..., None].expand_as(x))


def _mirror(valid: Tensor) -> Tensor:
    """Return the order (N, T) that turns the valid dates at the front around and leaves the rest; its own inverse."""
    places = _places(valid)
    return torch.where(valid, valid.sum(1, keepdim=True) - 1 - places, places)


def _places(valid: Tensor) -> Tensor:
    return torch.arange(valid.shape[1], device=valid.device)


def _differentiable(network: nn.Module, x: Tensor) -> contextlib.AbstractContextManager[None]:
    # cuDNN gives no gradient of a recurrent layer in evaluation mode, which is what saliency asks for. The switch is the
    # process's own, so it is left alone where it means nothing: blocks on a CPU run beside each other.
    if x.is_cuda and torch.is_grad_enabled() and not network.training:
        return torch.backends.cudnn.flags(enabled=False)
    return contextlib.nullcontext()
