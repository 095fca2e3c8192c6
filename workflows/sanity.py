"""Can the explanations of a trained model be trusted? Four checks, each with a verdict."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from models.inference import prepare, scores
from models.saliency.gradients import gradient
from models.saliency.randomise import anew
from pipeline.errors import RequestError
from pipeline.files import write_json
from pipeline.samples.chips import ChipStore
from workflows import removal
from workflows.agreement import METHODS, agreement, completeness
from workflows.charts import randomisation_chart, removal_chart
from workflows.console import duration
from workflows.explainers import explainers_of
from workflows.outlay import seconds_of
from workflows.randomisation import effort, randomised
from workflows.sections import Section
from workflows.soundness import LIMITS, of_agreement, of_completeness, of_randomisation, of_removal
from workflows.subject import Subject
from workflows.windows import final_windows, window_side

if TYPE_CHECKING:
    from models.bundle import Bundle
    from models.network import Network
    from workflows.context import Context

# Places of a network of single pixels, and the fewest and most of any other, with the pixels of all their windows together.
_PIXELS = 256
_WINDOWS = (16, 64, 1 << 17)
_COLUMNS = ("Check", "Method", "Verdict", "What was found")
_AXES = {"band": "bands", "date": "dates"}


def sanity(context: Context, bundle: Bundle) -> dict[str, Any]:
    """Check the explanations of the network that maps, at places of the test fold; write sanity.json, and print the table.

    Raises
    ------
    RequestError
        If the test fold holds no label.
    """
    console, task = context.console, str(bundle.task["name"])
    console.stage("explain: can it be trusted?")
    store = ChipStore.open(context.output.chips)
    network = bundle.network
    side = store.size if store.standalone else window_side(network)
    least, most, room = _WINDOWS
    wanted = _PIXELS if network.pixelwise else min(max(room // side**2, least), most)
    scorer, windows = final_windows(context, store, bundle, wanted)
    if windows is None:
        raise RequestError(
            "--sanity: the test fold holds no label, so there is no place to check explanations at; give it some "
            "(folds.fractions, or folds.k)"
        )
    with scorer.turn():
        subjects = [Subject.of(scorer.network, windows, e) for e in explainers_of(context.job.saliency, bundle)]
        console.note(_cost(subjects, network))
        if len(context.folds.rounds) > 1:
            console.note(
                "the network that maps has learnt from these places too: the checks are about it, not its accuracy"
            )
        quantity = _quantity(context.job.saliency.target, subjects[0])
        found: dict[str, Any] = {
            "model": bundle.checksum,
            "task": task,
            "quantity": quantity,
            "settings": context.job.saliency.model_dump(mode="json"),
            "limits": LIMITS,
            "places": len(windows),
            "window": windows.own.shape[-1],
            "methods": {},
        }
        for subject in subjects:
            found["methods"][subject.explainer.method] = {
                "randomisation": of_randomisation(randomised(subject, network)),
                "removal": of_removal(removal.removed(subject), quantity),
            }
        found["completeness"] = of_completeness(completeness(subjects[0]))
        found["agreement"] = {
            axis: of_agreement(figures, _AXES[axis]) for axis, figures in agreement(subjects[0]).items()
        }
    write_json(context.output.report / "sanity.json", found)
    console.table(f"  at {len(windows)} places of the test fold, each for its own pixel", _COLUMNS, _rows(found))
    return found


def shown(found: dict[str, Any]) -> list[Section]:
    """Return the checks as sections of the report."""
    sections = [
        Section(
            title="Can the explanations be trusted?",
            text=f"Checked at {found['places']} places of the test fold, each for its own pixel. Limits are chosen, and stand in "
            "sanity.json. Good does not mean that the network is right, but that the explanation says what the network does.",
            columns=_COLUMNS,
            rows=_rows(found),
        )
    ]
    for method, checks in found["methods"].items():
        charts: list[Markup] = []
        if "layers" in checks["randomisation"]:
            charts.append(randomisation_chart(checks["randomisation"]["layers"], LIMITS["randomisation"]))
        if "shares" in checks["removal"]:
            charts.append(removal_chart(checks["removal"], found["quantity"]))
        if not charts:
            continue
        sections.append(
            Section(
                title=f"Weights at random, and parts taken away: {method}",
                text="First what remains of the explanation as weights are drawn anew, layer by layer, from the scores to the "
                "inputs; one that hangs on what was learnt falls to nothing. The size of values hangs on the form of the network "
                "too, and may stay alike. Then what remains of the target as parts of the input are replaced by the baseline, "
                "and what comes back as they are put back; an explanation that names what counts lies further from random.",
                charts=charts,
            )
        )
    for axis, figures in found["agreement"].items():
        if "matrix" in figures:
            rows = [(m, *row) for m, row in zip(figures["methods"], figures["matrix"], strict=True)]
            sections.append(
                Section(
                    title=f"How alike methods are over {_AXES[axis]}",
                    text=f"Rank correlation of the shares that methods give the {_AXES[axis]} of each place.",
                    columns=("Method", *figures["methods"]),
                    rows=[[f"{v:.2f}" if isinstance(v, float) else v for v in row] for row in rows],
                )
            )
    return sections


def _rows(found: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    rows = []
    for method, checks in found["methods"].items():
        for key, title in (("randomisation", "weights at random"), ("removal", "parts taken away")):
            rows.append((title, method, checks[key]["verdict"], checks[key]["says"]))
    own = found["completeness"]
    rows.append(("completeness", "integrated_gradients", own["verdict"], own["says"]))
    for axis, figures in found["agreement"].items():
        rows.append((f"agreement on {_AXES[axis]}", "all that tell them apart", figures["verdict"], figures["says"]))
    return rows


def _quantity(target: str, subject: Subject) -> str:
    """Return what the curves of removal follow, in words."""
    if subject.target.temperature is None:
        return "nearness to the value"
    if target == "margin":
        return "probability of the first class less that of the second"
    return "probability of the class" if target == "winner" else f"probability of {target}"


def _cost(subjects: list[Subject], trained: Network) -> str:
    """Return how many passes there will be, and how long they may take by a short probe."""
    first = subjects[0]
    network, side, n = first.network, first.windows.own.shape[-1], len(first.windows)
    forward = backward = drawn = 0  # passes times places; networks drawn
    for subject in subjects:
        plan, own = effort(subject, trained), subject.explainer.passes(network, network.bands, network.dates)
        drawn += plan.stages * plan.draws
        times = plan.stages * plan.draws * plan.places + plan.places + n
        forward += own.forward * times + removal.effort(subject) * n
        backward += own.gradient * times
    for method in ("integrated_gradients", *METHODS):
        own = first.by(method).explainer.passes(network, network.bands, network.dates)
        forward, backward = forward + own.forward * n, backward + own.gradient * n
    some = first.windows.at(slice(8))
    tile = some.cube, some.valid, some.time
    seconds = (
        forward * seconds_of(lambda: scores(network, *tile)) / len(some)
        + backward * seconds_of(lambda: gradient(network, *tile, some.own)) / len(some)
        + drawn * seconds_of(lambda: prepare(anew(trained, 0)))
    )
    return (
        f"{n} windows of {side} x {side} pixels; {forward:,} passes forward and {backward:,} forward and backward of one window, "
        f"{drawn:,} networks drawn anew: about {duration(math.ceil(seconds))}"
    )
