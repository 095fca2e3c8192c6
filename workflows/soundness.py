"""From the figures of a check to a verdict, and a sentence that an analyst can read."""

from __future__ import annotations

from typing import Any

LIMITS: dict[str, Any] = {
    "randomisation": 0.1,
    "removal": 2.0,
    "completeness": [0.01, 0.05],
    "agreement": [0.7, 0.4],
}
"""Chosen, as all limits are: the rank correlation that may be left with all weights at random; standard errors by which an order
must be better than a random one; what may be missing of the sum, good and fair; mean rank correlation of methods, good and
fair."""

_ERRORS = 2.0  # standard errors of an interval


def of_randomisation(figures: dict[str, Any] | None) -> dict[str, Any]:
    """Return the figures of `randomised` with ``verdict`` and ``says``."""
    if figures is None:
        return _verdict("not applicable", "the method gives each place one value, and one value has no rank")
    limit, last = LIMITS["randomisation"], figures["layers"][-1]
    value, error = last["correlation"], last["standard_error"]
    if value is None:
        return figures | _verdict("undecided", "no correlation can be taken: the explanation is the same everywhere")
    low, high = value - _ERRORS * error, value + _ERRORS * error
    # Rounded first: nothing is left, not minus nothing.
    left = f"rank correlation with all weights at random {round(value, 2) + 0.0:.2f} ± {_ERRORS * error:.2f}"
    if -limit < low and high < limit:
        verdict, meaning = "good", "it hangs on what was learnt"
    elif low >= limit or high <= -limit:
        verdict, meaning = "poor", "it shows much that was not learnt"
    else:
        verdict, meaning = "undecided", f"that may be above or below {limit:g} in size"
    if last["sizes"] is not None and last["sizes"] >= limit:
        meaning += f" (sizes alone: {last['sizes']:.2f}, by the form of the network)"
    if figures["constant"] > 0:
        meaning += f"; {100 * figures['constant']:.0f} % could not be compared, for they were the same everywhere"
    return figures | _verdict(verdict, f"{left}: {meaning}")


def of_removal(figures: dict[str, Any] | None, quantity: str) -> dict[str, Any]:
    """Return the figures of `removed` with ``verdict`` and ``says``."""
    if figures is None:
        return _verdict(
            "not applicable", "the method tells no two parts apart, or replacing all of them changes nothing"
        )
    areas = figures["areas"]
    text = (
        f"mean {quantity}: {areas['deletion']:.2f} as the parts it names are taken away, {areas['insertion']:.2f} as they are "
        f"put back, {areas['random']:.2f} ± {_ERRORS * areas['random_error']:.2f} in random order"
    )
    better = {}
    for key, difference in figures["differences"].items():
        if difference["standard_error"] is None:
            return figures | _verdict("undecided", f"{text}; of a single place")
        better[key] = difference["mean"] > LIMITS["removal"] * difference["standard_error"]
    if all(better.values()):
        return figures | _verdict("good", f"{text}: what it names counts")
    if any(better.values()):
        which = "taken away" if better["deletion"] else "put back"
        return figures | _verdict("fair", f"{text}: better than random only as parts are {which}")
    return figures | _verdict("poor", f"{text}: no better than random")


def of_completeness(figures: dict[str, Any]) -> dict[str, Any]:
    """Return the figures of `completeness` with ``verdict`` and ``says``."""
    relative, (good, fair) = figures["relative"], LIMITS["completeness"]
    if relative is None:
        return figures | _verdict(
            "not applicable", "the scores are those at the baseline: there is nothing to share out"
        )
    text = (
        f"missing from the sum with {figures['steps']} steps: {100 * relative:.2f} % of the change of the score "
        f"(at most {figures['largest']:.2g} of {figures['change']:.2g})"
    )
    if relative < good:
        return figures | _verdict("good", text)
    return figures | _verdict("fair" if relative < fair else "poor", f"{text}; raise saliency.steps")


def of_agreement(figures: dict[str, Any] | None, parts: str) -> dict[str, Any]:
    """Return the figures of `agreement` with ``verdict`` and ``says``."""
    if figures is None:
        return _verdict("not applicable", f"there are no two {parts}")
    if figures["mean"] is None:
        return figures | _verdict("undecided", "no correlation can be taken: shares are the same everywhere")
    good, fair = LIMITS["agreement"]
    (one, other), least = figures["least"]["methods"], figures["least"]["correlation"]
    text = f"mean rank correlation {figures['mean']:.2f}; furthest apart are {one} and {other}: {least:.2f}"
    if figures["mean"] >= good:
        return figures | _verdict("good", text)
    if figures["mean"] >= fair:
        return figures | _verdict("fair", f"{text}; look at more than one method")
    return figures | _verdict("poor", f"{text}; what counts hangs on how one asks")


def _verdict(verdict: str, says: str) -> dict[str, Any]:
    return {"verdict": verdict, "says": says}
