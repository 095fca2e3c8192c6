"""Temperature scaling, calibration error, and the forest."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import softmax

from models.calibration import expected_calibration_error, fit_temperature, negative_log_likelihood, reliability
from models.forest import Forest
from models.network import ModelError


def planted(temperature, n=20_000, classes=5, seed=0):
    rng = np.random.default_rng(seed)
    honest = rng.normal(size=(n, classes)) * 2
    p = softmax(honest, axis=1)
    target = (p.cumsum(1) > rng.random((n, 1))).argmax(1)
    return (honest * temperature).astype(np.float32), target


@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.5, 8.0])
def test_a_planted_temperature_is_found(temperature):
    assert fit_temperature(*planted(temperature)) == pytest.approx(temperature, rel=0.05)


def test_calibration_lowers_the_error():
    scores, target = planted(2.5)
    before = expected_calibration_error(softmax(scores, axis=1), target)
    after = expected_calibration_error(softmax(scores / fit_temperature(scores, target), axis=1), target)
    assert before > 0.1 > 0.02 > after


def test_no_other_temperature_is_more_likely():
    scores, target = planted(2.5)
    best = fit_temperature(scores, target)
    least = negative_log_likelihood(scores, target, best)
    assert all(negative_log_likelihood(scores, target, best * f) > least - 1e-6 for f in (0.8, 0.95, 1.05, 1.25))


def test_a_perfect_small_fold_does_not_make_every_confidence_one():
    target = np.arange(20) % 3
    scores = 4.0 * np.eye(3)[target]
    confidence = softmax(scores / fit_temperature(scores, target), axis=1).max(1).mean()
    assert confidence == pytest.approx(21 / 22, abs=1e-3)


def test_a_network_that_is_always_wrong_gets_a_finite_temperature():
    target = np.arange(20) % 3
    assert 10 < fit_temperature(4.0 * np.eye(3)[(target + 1) % 3], target) <= 100


def test_the_calibration_error_by_hand():
    p = np.array([[0.95, 0.05], [0.95, 0.05], [0.6, 0.4], [0.6, 0.4]])
    target = np.array([0, 1, 0, 0])
    assert expected_calibration_error(p, target, bins=10) == pytest.approx(0.5 * 0.45 + 0.5 * 0.4)
    rows = reliability(p, target, bins=10)
    assert [(r["n"], r["accuracy"]) for r in rows] == [(2, 1.0), (2, 0.5)]
    assert [r["confidence"] for r in rows] == pytest.approx([0.6, 0.95])


def test_a_confidence_of_one_has_a_bin():
    assert reliability(np.eye(3), np.arange(3))[0]["high"] == 1.0


def test_nothing_to_calibrate_on_is_said():
    with pytest.raises(ModelError, match="no labelled pixels"):
        fit_temperature(np.zeros((0, 3)), np.zeros(0, int))
    with pytest.raises(ModelError, match="not finite"):
        fit_temperature(np.full((2, 3), np.nan), np.zeros(2, int))
    with pytest.raises(ModelError, match="no pixels"):
        expected_calibration_error(np.zeros((0, 3)), np.zeros(0, int))


def test_a_forest_learns_and_repeats():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 3)).astype(np.float32)
    y = (x[:, 0] > 0).astype(int) * 2
    first, second = (Forest(trees=20, seed=1, jobs=j).fit(x[:300], y[:300]).predict(x[300:]) for j in (1, 2))
    assert (first == y[300:]).mean() > 0.95
    assert np.array_equal(first, second)
    assert first.dtype == np.int64
    assert Forest(trees=5, jobs=1).fit(x, y).importance().argmax() == 0
    assert len(Forest(trees=2, jobs=1).fit(x, y).predict(x[:0])) == 0
