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
    if not bundle.classifies and settings.target != "winner":
        raise JobError(
            f"saliency.target: found {settings.target}, but the model gives a number and no classes; leave it out"
        )
    check_names(settings, [c["name"] for c in bundle.legend], bundle.bands)
    target, baseline = target_of(settings, bundle), _baseline(settings, bundle)
    return tuple(
        Explainer(method=method, settings=settings, target=target, baseline=baseline) for method in settings.methods
    )


def planned(settings: SaliencySettings) -> tuple[Explainer, ...]:
    """Return the methods as far as a plan needs them, where no model is trained yet."""
    return tuple(Explainer(method=method, settings=settings, baseline=()) for method in settings.methods)


def check_names(settings: SaliencySettings, classes: Sequence[str], bands: Sequence[str]) -> None:
    """Refuse a target that is no class, and a baseline of bands that are not there.

    Raises
    ------
    JobError
        Names what was found, the nearest name, and all that are allowed.
    """
    if classes and settings.target not in ("winner", "margin") and settings.target not in classes:
        raise JobError(
            f"saliency.target: there is no class '{settings.target}'{nearest(settings.target, classes) or '.'} Allowed are "
            f"winner, margin, {', '.join(classes)}"
        )
    if len(classes) == 1 and settings.target == "margin":
        raise JobError(
            f"saliency.target: found margin, but there is one class, {classes[0]}, and no second; leave it out"
        )
    stated = () if settings.baseline == "mean" else settings.baseline
    if strange := [name for name in stated if name not in bands]:
        raise JobError(
            f"saliency.baseline: there is no band '{strange[0]}'{nearest(strange[0], bands) or '.'} Allowed are "
            + ", ".join(bands)
        )


def target_of(settings: SaliencySettings, bundle: Bundle) -> Target:
    """Return what is explained; the names were checked."""
    if not bundle.classifies:
        return Target("output", 0, None)
    if settings.target == "winner":
        return Target("winner", 0, bundle.temperature)
    if settings.target == "margin":
        return Target("margin", 0, bundle.temperature)
    names = [c.name for c in Legend.from_json(bundle.legend).classes]
    return Target("output", names.index(settings.target), bundle.temperature)


def _baseline(settings: SaliencySettings, bundle: Bundle) -> tuple[float, ...]:
    """Return the normalised values that bands hold when they are taken away."""
    if settings.baseline == "mean":
        return (0.0,) * len(bundle.bands)
    stated = settings.baseline
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
