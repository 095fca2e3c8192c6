"""From what a job says of saliency, and a trained model, to the methods that explain it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from models.saliency.methods import Explainer
from models.saliency.target import Target
from pipeline.errors import JobError, nearest
from pipeline.samples.legend import Legend

if TYPE_CHECKING:
    from collections.abc import Sequence

    from models.bundle import Bundle
    from models.settings import Method, Per, SaliencySettings


def explainers_of(settings: SaliencySettings, bundle: Bundle) -> tuple[Explainer, ...]:
    """Return the methods that are asked for, in order, for one trained model.

    Raises
    ------
    JobError
        If the target is no class of the model, or the baseline names a band that it does not have.
    """
    target, baseline = target_of(settings, bundle), _baseline(settings, bundle)
    return tuple(
        Explainer(method=method, settings=settings, target=target, baseline=baseline) for method in settings.methods
    )


def target_of(settings: SaliencySettings, bundle: Bundle) -> Target:
    """Return what is explained.

    Raises
    ------
    JobError
        If it is no class of the model.
    """
    if not bundle.classifies:
        if settings.target != "winner":
            raise JobError(
                f"saliency.target: found {settings.target}, but the model gives one number and no classes; leave it out"
            )
        return Target("output", 0, None)
    names = [c.name for c in Legend.from_json(bundle.legend).classes]
    if settings.target == "winner":
        return Target("winner", 0, bundle.temperature)
    if settings.target == "margin":
        return Target("margin", 0, bundle.temperature)
    return Target("output", class_index(settings.target, names), bundle.temperature)


def class_index(target: str, names: Sequence[str]) -> int:
    """Return the index of the class that ``saliency.target`` names.

    Raises
    ------
    JobError
        If there is none; names the nearest, and all there are.
    """
    if target not in names:
        raise JobError(
            f"saliency.target: there is no class '{target}'{nearest(target, names) or '.'} Allowed are winner, margin, "
            + ", ".join(names)
        )
    return list(names).index(target)


def _baseline(settings: SaliencySettings, bundle: Bundle) -> tuple[float, ...]:
    """Return the normalised values that bands hold when they are taken away."""
    if settings.baseline == "mean":
        return (0.0,) * len(bundle.bands)
    stated = settings.baseline
    if strange := [name for name in stated if name not in bundle.bands]:
        raise JobError(
            f"saliency.baseline: there is no band '{strange[0]}'{nearest(strange[0], bundle.bands) or '.'} The model has "
            + ", ".join(bundle.bands)
        )
    mean, std = np.asarray(bundle.mean), np.asarray(bundle.std)
    values: Any = np.asarray([stated.get(name, m) for name, m in zip(bundle.bands, mean, strict=True)])
    return tuple(float(v) for v in (values - mean) / std)


def layer_name(settings: SaliencySettings, method: Method, per: Per) -> str:
    """Return the name of a layer: plain for the first method, with its own name for any other."""
    own = "" if method == settings.methods[0] else f"_{method}"
    return {
        "pixel": f"saliency{own}",
        "band": f"saliency{own}_bands",
        "date": f"saliency{own}_dates",
        "dominant_band": f"dominant_band{own}",
        "dominant_date": f"dominant_date{own}",
    }[per]
