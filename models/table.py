"""The table of networks by name."""

from __future__ import annotations

import difflib
import importlib
from typing import Any

from pydantic import ValidationError

from models.network import ModelError, Network, NetworkSettings

# One line per network. Classes are imported when first asked for: the command line must not wait for all of them.
NETWORKS: dict[str, str] = {
    "mlp": "models.networks.mlp:MLP",
    "cnn": "models.networks.cnn:CNN",
    "tempcnn": "models.networks.tempcnn:TempCNN",
    "rnn": "models.networks.recurrent:RNN",
    "lstm": "models.networks.recurrent:LSTM",
    "gru": "models.networks.recurrent:GRU",
    "transformer": "models.networks.transformer:Transformer",
    "ltae": "models.networks.ltae:LTAE",
    "unet": "models.networks.unet:UNet",
    "resnet": "models.networks.resnet:ResNet",
    "spectral": "models.networks.spectral:Spectral",
    "convlstm": "models.networks.convlstm:ConvLSTM",
    "utae": "models.networks.utae:UTAE",
    "autoencoder": "models.networks.autoencoder:Autoencoder",
    "vae": "models.networks.vae:VAE",
    "gan": "models.networks.gan:GAN",
}


def network_class(name: str) -> type[Network]:
    """Return the class of a network.

    Raises
    ------
    ModelError
        If there is no network of that name; names the nearest, and all there are.
    """
    if name not in NETWORKS:
        close = difflib.get_close_matches(name.lower(), NETWORKS, n=1, cutoff=0.5)
        hint = f"; did you mean '{close[0]}'?" if close else "."
        raise ModelError(f"there is no network '{name}'{hint} There are: {', '.join(NETWORKS)}")
    module, _, attribute = NETWORKS[name].partition(":")
    found: type[Network] = getattr(importlib.import_module(module), attribute)
    return found


def build(name: str, settings: dict[str, Any] | NetworkSettings, *, bands: int, dates: int, classes: int) -> Network:
    """Return a new network with random weights, drawn from torch's global generator.

    Raises
    ------
    ModelError
        If the name is unknown, or a setting is wrong; names the setting and what was found.
    """
    kind = network_class(name)
    if isinstance(settings, dict):
        try:
            settings = kind.Settings(**settings)
        except ValidationError as error:
            faults = (f"{'.'.join(map(str, f['loc']))}: {f['msg']}, found {f['input']!r}" for f in error.errors())
            raise ModelError(f"settings of the network '{name}': {'; '.join(faults)}") from error
    return kind(settings, bands=bands, dates=dates, classes=classes)
