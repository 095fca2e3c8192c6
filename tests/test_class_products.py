"""Scores to classes, confidence and probabilities, against the plain way."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.samples.legend import Legend, LegendClass
from workflows.products.classes import Classes

TEMPERATURE = 1.7


def product(classes: int) -> Classes:
    """Return what is made of the scores of so many classes, with codes from 1 on."""
    legend = Legend(tuple(LegendClass(name=f"c{i}", code=i + 1, color="#102030", values=(i,)) for i in range(classes)))
    bundle: Any = SimpleNamespace(legend=legend.to_json(), temperature=TEMPERATURE)
    return Classes(bundle)


def made(classes: int, scores: np.ndarray[Any, Any]) -> dict[str, np.ndarray[Any, Any]]:
    nothing = torch.empty(0)
    wanted = ("classes", "confidence", "probabilities")
    return product(classes).made(wanted, torch.from_numpy(scores), nothing, nothing, nothing)


# Beyond 255 classes ranks no longer fit a byte; 70 rows are more than are computed at once.
@pytest.mark.parametrize("classes", [2, 8, 255, 256, 300])
def test_layers_are_those_of_argmax_and_softmax(classes: int) -> None:
    # Whole numbers, so that there are ties.
    scores = np.random.default_rng(0).integers(-9, 9, (classes, 70, 11)).astype(np.float32)
    found = made(classes, scores)
    np.testing.assert_array_equal(found["classes"][0], scores.argmax(0) + 1)
    shares = np.exp(scores.astype(np.float64) / TEMPERATURE)
    shares /= shares.sum(0)
    np.testing.assert_allclose(found["probabilities"], shares, rtol=1e-5, atol=1e-7)
    np.testing.assert_array_equal(found["confidence"][0], found["probabilities"].max(0))


def test_the_scores_stay_as_they_were() -> None:
    scores = np.random.default_rng(1).normal(size=(5, 32, 8)).astype(np.float32)
    before = scores.copy()
    made(5, scores)
    np.testing.assert_array_equal(scores, before)


def test_where_scores_are_no_numbers_there_is_no_class() -> None:
    scores = np.zeros((3, 4, 4), np.float32)
    scores[:, 1, 2] = np.nan
    found = made(3, scores)["classes"]
    assert found[0, 1, 2] == product(3).legend.nodata
    assert (found[0] == 1).sum() == 15
