"""A convolutional LSTM on tiles."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn

from models.network import Network, NetworkSettings, masked
from models.networks.layers import Dropout, year_cycle
from models.receptive import receptive_radius

_KERNEL = 3


class ConvLSTMSettings(NetworkSettings):
    """Settings of the convolutional LSTM."""

    hidden: int = Field(32, ge=1, le=512, description="Channels of the state.")
    layers: int = Field(
        1, ge=1, le=4, description="Layers, one on the states of the other; each adds a pixel of context on every side."
    )
    dropout: Dropout = Field(0.1, description="Share of channels left out in each step of training, behind each layer.")


class ConvLSTM(Network):
    """Convolutional LSTM (Shi et al. 2015): a memory per pixel, that grows by its neighbours' at each date.

    The scores are made from the last state. Where a date is masked, a pixel keeps its state; that a neighbour is masked is
    a channel of its own, beside the bands and the sine and cosine of the day of the year. A pixel sees as many
    pixels around it as there are dates: the halo of a long series is wide, and each pixel is computed at full
    resolution for every date. Where that is too dear, `utae` sees as far for less.
    """

    name = "convlstm"
    Settings = ConvLSTMSettings
    settings: ConvLSTMSettings
    temporal = True
    fixed_dates = False

    def __init__(self, settings: ConvLSTMSettings, *, bands: int, dates: int, classes: int) -> None:
        super().__init__(settings, bands=bands, dates=dates, classes=classes)
        n = settings.hidden
        widths = [bands + 3] + [n] * (settings.layers - 1)
        self.gates = nn.ModuleList(nn.Conv2d(width + n, 4 * n, _KERNEL, padding=_KERNEL // 2) for width in widths)
        for gate in self.gates:
            # Forget gates start open, as in `lstm`.
            nn.init.ones_(gate.get_parameter("bias")[n : 2 * n])
        self.dropout = nn.Dropout2d(settings.dropout)
        self.head = nn.Conv2d(n, classes, 1)

    @property
    def stride(self) -> int:
        """Any size will do."""
        return 1

    @property
    def radius(self) -> int:
        """One pixel for each date and for each further layer: so many convolutions lie behind the first date."""
        convs = self.dates + self.settings.layers - 1
        return receptive_radius(lambda span: span.conv(_KERNEL, convs), self.stride)

    @property
    def chip(self) -> int:
        """At least a halo and 32 pixels, as for the U-Net."""
        return max(32, self.halo)

    def forward(self, cube: Tensor, valid: Tensor, time: Tensor) -> Tensor:
        """Return scores (B, K, H, W)."""
        self.check(cube)
        b, t, _, h, w = cube.shape
        flags = valid[:, :, None]  # (B, T, 1, H, W)
        cycle = year_cycle(time)[..., None, None].expand(b, t, 2, h, w)
        x = torch.cat([masked(cube, valid), flags.to(cube.dtype), cycle], dim=2)  # (B, T, C + 3, H, W)
        inputs = list(x.unbind(1))
        for gate in self.gates:
            state = memory = cube.new_zeros(b, self.settings.hidden, h, w)
            states: list[Tensor] = []
            for i, values in enumerate(inputs):
                made, kept = _step(gate, values, state, memory)
                state = torch.where(flags[:, i], made, state)
                memory = torch.where(flags[:, i], kept, memory)
                states.append(state)
            inputs = [self.dropout(state) for state in states]
        scores: Tensor = self.head(inputs[-1])
        return scores


def _step(gate: nn.Module, values: Tensor, state: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
    """Return state and memory (B, hidden, H, W) after one date."""
    gates = gate(torch.cat([values, state], dim=1))
    enter, forget, cell, out = gates.chunk(4, dim=1)
    memory = forget.sigmoid() * memory + enter.sigmoid() * cell.tanh()
    return out.sigmoid() * memory.tanh(), memory
