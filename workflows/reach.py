"""Whether a network can learn from samples that stand by themselves: how far it looks, and how far they reach."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.errors import RequestError

if TYPE_CHECKING:
    from models.network import Network
    from pipeline.samples.standalone import Samples


def pixel_networks() -> list[str]:
    """Return the names of the networks that look at one pixel at a time."""
    from models.network import PixelNetwork
    from models.table import NETWORKS, network_class

    return [name for name in NETWORKS if issubclass(network_class(name), PixelNetwork)]


def check_reach(network: Network, samples: Samples) -> None:
    """Refuse a network that cannot learn from samples with one label each, for what it would have to see around it.

    Raises
    ------
    RequestError
        If it looks further than the samples reach, or takes no patch around a pixel.
    """
    if network.pixelwise:
        return
    if not samples.reach:
        raise RequestError(
            f"model.name: the network '{network.name}' looks at the land around a pixel, and the {samples.what} hold "
            f"single pixels; those that can learn from one are {', '.join(pixel_networks())}"
        )
    if network.stride > 1 and not network.centred:
        raise RequestError(
            f"model.name: the network '{network.name}' takes squares of {network.stride} pixels and their multiples, which have "
            "no pixel at their centre, where the label of a chip is; choose a network that learns from patches, or one of "
            f"single pixels: {', '.join(pixel_networks())}"
        )
    if network.halo > samples.reach:
        patch, most = 2 * network.halo + 1, 2 * samples.reach + 1
        hint = f"model.patch: {most}" if "patch" in network.settings.model_dump() else "other settings of it"
        raise RequestError(
            f"model: the network '{network.name}' sees {network.halo} pixels around the label, a patch of {patch} x {patch}, and "
            f"the chips hold {samples.reach}, {most} x {most}; choose {hint}, or another network"
        )
