"""A multilayer perceptron on the values of one pixel."""

from __future__ import annotations

from typing import ClassVar, cast

from pydantic import Field, field_validator
from torch import Tensor, nn

from models.network import Network, NetworkSettings
from models.networks.layers import Activation, activation, normalisation, tileable


class MLPSettings(NetworkSettings):
    """A multilayer perceptron on the values of one pixel; no context, no halo."""

    hidden: list[int] = Field(
        [64, 64], description="Units of each hidden layer. [] is the perceptron: logistic regression."
    )
    dropout: float = Field(0.1, ge=0, lt=1, description="Share of hidden units left out at random while training.")
    activation: Activation = Field("relu", description="What follows each hidden layer.")
    normalisation: str = Field("batch", description="batch or none.")

    @field_validator("hidden")
    @classmethod
    def _positive(cls, hidden: list[int]) -> list[int]:
        if any(units < 1 for units in hidden):
            raise ValueError(f"each hidden layer needs at least one unit, found {hidden}")
        return hidden

    @field_validator("normalisation")
    @classmethod
    def _tileable(cls, name: str) -> str:
        return tileable(name)


class MLP(Network):
    """Multilayer perceptron: each pixel by its own values, all dates and bands side by side."""

    name: ClassVar[str] = "mlp"
    Settings: ClassVar[type[NetworkSettings]] = MLPSettings
    chip: ClassVar[int] = 1

    def __init__(self, settings: MLPSettings, *, bands: int, dates: int, classes: int) -> None:
        super().__init__(settings, bands=bands, dates=dates, classes=classes)
        layers: list[nn.Module] = []
        width = bands * dates
        for units in settings.hidden:
            layers += [nn.Linear(width, units), normalisation(settings.normalisation, units, 1)]
            layers += [activation(settings.activation), nn.Dropout(settings.dropout)]
            width = units
        layers.append(nn.Linear(width, classes))
        self.layers = nn.Sequential(*layers)

    @property
    def halo(self) -> int:
        """No context."""
        return 0

    @property
    def stride(self) -> int:
        """Every pixel is like every other."""
        return 1

    def forward(self, cube: Tensor, valid: Tensor, time: Tensor) -> Tensor:  # noqa: ARG002 - one contract for all
        """Score each pixel; see `Network.forward`."""
        self.check(cube)
        B, T, C, H, W = cube.shape
        pixels = cube.permute(0, 3, 4, 1, 2).reshape(B * H * W, T * C)
        scores = cast(Tensor, self.layers(pixels))  # (B * H * W, K)
        return scores.reshape(B, H, W, self.classes).permute(0, 3, 1, 2)


