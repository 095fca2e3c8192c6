"""Begin with what another training has learnt: everything of its network but what makes the outputs."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from models.bundle import Bundle
from models.network import ModelError, Network
from models.table import build

# Heads and decoders: what makes the outputs, in networks that say so by name.
_OUTPUT = ("head.", "decoder.")


def load_pretrained(network: Network, bundle: Bundle, bands: Sequence[str]) -> list[str]:
    """Copy weights of a bundle into a new network of the same name; its output layer stays as new as it is.

    What makes the outputs, a head, a decoder, or whatever has another shape for another number of classes, is taken only
    where the new network is also made for no classes: its decoder learns on.

    Parameters
    ----------
    network : Network
        Changed in place.
    bundle : Bundle
        A trained network of the same name, whose settings gave it the same shapes; learnt with or without labels.
    bands : sequence of str
        Names of the bands of the cube that ``network`` will be shown, in their order.

    Returns
    -------
    list of str
        Names of the tensors that were taken.

    Raises
    ------
    ModelError
        If the networks or their bands are not the same, or a tensor behind the outputs has no counterpart; names both.
    """
    other = bundle.network
    if other.name != network.name:
        raise ModelError(
            f"model.pretrained: it holds a network '{other.name}', and model.name is '{network.name}'; they must be the same"
        )
    if list(bundle.bands) != list(bands):
        raise ModelError(
            f"model.pretrained: it was trained on the bands {', '.join(bundle.bands)}, here they are {', '.join(bands)}; "
            "weights belong to bands, so names and order must be the same"
        )
    state, given = network.state_dict(), other.state_dict()
    goes_on = network.classes == 0 == other.classes
    taken = list(state) if goes_on else sorted(set(state) - _outputs(network), key=list(state).index)
    strange = [name for name in taken if name not in given or given[name].shape != state[name].shape]
    if strange or not taken:
        raise ModelError(
            f"model.pretrained: it holds a network '{other.name}' that does not fit, {_differences(network, other)}; "
            f"{len(strange)} of {len(taken)} tensors have another shape or are missing, "
            f"the first {strange[0] if strange else 'would be the output layer'}"
        )
    network.load_state_dict(state | {name: given[name] for name in taken})
    return taken


def _outputs(network: Network) -> set[str]:
    """Return the names of the tensors that make the outputs."""
    state = network.state_dict()
    found = {name for name in state if name.startswith(_OUTPUT)}
    # A generator of its own: to look at a network must not change the numbers that are drawn afterwards.
    with torch.random.fork_rng(devices=[]):
        wider = build(
            network.name, network.settings, bands=network.bands, dates=network.dates, classes=network.classes + 2
        ).state_dict()
    return found | {name for name in state if name not in wider or wider[name].shape != state[name].shape}


def _differences(network: Network, other: Network) -> str:
    """Return what was set otherwise in the two networks."""
    here, there = network.settings.model_dump(mode="json"), other.settings.model_dump(mode="json")
    pairs = {"dates": (other.dates, network.dates)} | {name: (there[name], here[name]) for name in here}
    told = [f"{name} {then} there and {now} here" for name, (then, now) in pairs.items() if then != now]
    return ", ".join(told) or "though its settings are the same"
