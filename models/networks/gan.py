"""A classifier of patches that also learns from patches without labels, against a generator."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from models.networks.cnn import CNN, CNNSettings
from models.networks.layers import Normalisation


class GANSettings(CNNSettings):
    """Settings of the classifier, and of the generator that it learns against."""

    normalisation: Normalisation = Field(
        "none",
        description="Normalisation of each layer: batch or none. With batch its statistics are also those of made-up patches.",
    )
    noise: int = Field(32, ge=1, le=1024, description="Random numbers that the generator makes a patch of.")
    generator_width: int = Field(
        16, ge=1, le=512, description="Channels of the generator at full resolution, doubled at each level below."
    )
    unlabelled_weight: float = Field(
        0.1,
        ge=0,
        description="Weight of telling real patches from made-up ones, beside that of telling the classes of labelled ones. "
        "With much more it outweighs a few labels.",
    )


class GAN(CNN):
    """Classifier of patches that learns from unlabelled land too, by telling it from what a generator makes up.

    After Salimans et al. (2016): the network is the discriminator, a classifier of K classes and one more, made-up, whose
    score is fixed at 0. So a patch is real with the probability D = Z / (Z + 1), where Z is the sum of the exponentials of
    the K scores, and the network maps as any classifier of patches does. The generator lives in the training alone
    (`models.adversarial.AdversarialTask`): it is no part of the network, of its bundle or of a prediction.
    """

    name = "gan"
    semi_supervised = True
    Settings = GANSettings
    settings: GANSettings

    def judge(self, cube: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """Return the scores (B, K) of patches (B, T, C, S, S) of the chip's size, and the features (B, F) behind them."""
        features = self.layers[:-1](self._inputs(cube, valid))
        scores: Tensor = self.layers[-1](features)
        return scores.flatten(1), features.flatten(1)
