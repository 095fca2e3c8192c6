"""Moments in pieces against NumPy at once; normalisation."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.imagery.statistics import Moments, Statistics


@settings(max_examples=50, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 50), min_size=1, max_size=8),
    centre=st.floats(-1e4, 1e4),
    seed=st.integers(0, 1000),
    order=st.randoms(use_true_random=False),
)
def test_pieces_of_any_size_in_any_order_give_the_moments_of_all(sizes, centre, seed, order):
    rng = np.random.default_rng(seed)
    parts = [(centre + rng.normal(0, 3, (2, n))).astype(np.float32) for n in sizes]
    moments = [Moments.of(p) for p in parts]
    order.shuffle(moments)
    found = functools.reduce(Moments.combine, moments, Moments.none(2))
    together = np.concatenate(parts, 1).astype(np.float64)
    assert found.count.tolist() == [together.shape[1]] * 2
    if together.shape[1]:
        np.testing.assert_allclose(found.mean, together.mean(1), rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(found.m2, together.var(1) * together.shape[1], rtol=1e-6, atol=1e-9)


def test_a_large_mean_does_not_swallow_a_small_deviation():
    values = 1e8 + np.random.default_rng(0).normal(0, 1, (1, 10_000))
    found = functools.reduce(Moments.combine, [Moments.of(v) for v in np.split(values, 100, axis=1)])
    assert np.sqrt(found.m2 / found.count)[0] == pytest.approx(values.std(), rel=1e-6)


def test_normalised_values_have_mean_zero_and_deviation_one():
    rng = np.random.default_rng(0)
    values = rng.normal([[100], [-5]], [[20], [0.5]], (2, 5000)).astype(np.float32)
    statistics = Statistics.from_moments(Moments.of(values))
    cube = values.reshape(1, 2, 50, 100)
    normal = statistics.normalise(cube, np.ones((1, 50, 100), bool))
    np.testing.assert_allclose(normal.mean((0, 2, 3)), 0, atol=1e-4)
    np.testing.assert_allclose(normal.std((0, 2, 3)), 1, rtol=1e-4)
    assert normal.dtype == np.float32


@pytest.mark.parametrize("level", [0.0, 7.0, 1e6 + 0.1])
def test_a_constant_band_becomes_zero_and_stays_finite(level):
    statistics = Statistics.from_moments(Moments.of(np.full((1, 1000), level, np.float32)))
    assert statistics.std.tolist() == [1]
    normal = statistics.normalise(np.full((1, 1, 4, 4), level, np.float32), np.ones((1, 4, 4), bool))
    np.testing.assert_allclose(normal, 0, atol=0.1)


def test_no_values_at_all_give_no_nan():
    statistics = Statistics.from_moments(Moments.none(3))
    assert statistics.mean.tolist() == [0, 0, 0]
    assert statistics.std.tolist() == [1, 1, 1]


@pytest.mark.parametrize("batch", [(), (4,), (2, 3)])
def test_invalid_pixels_are_zero_whatever_they_hold(batch):
    statistics = Statistics(np.array([10, 20], np.float32), np.array([2, 4], np.float32))
    values = np.full((*batch, 3, 2, 5, 6), 30, np.float32)
    valid = np.ones((*batch, 3, 5, 6), bool)
    values[..., 1, 0, 2, 2] = np.nan
    valid[..., 1, 2, 2] = False
    normal = statistics.normalise(values, valid)
    assert normal.shape == values.shape
    assert not normal[..., 1, :, 2, 2].any()
    assert (normal[..., 0, 0, :, :] == 10).all()
    assert (normal[..., 0, 1, :, :] == 2.5).all()
