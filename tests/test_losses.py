"""Masked and weighted losses."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from models.losses import IGNORE, class_weights, cross_entropy, labelled
from models.network import ModelError
from models.settings import LossSettings


def batch(seed=0):
    torch.manual_seed(seed)
    scores, labels = torch.randn(2, 3, 5, 7), torch.randint(-1, 3, (2, 5, 7))
    return scores, labels


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_is_that_of_labelled_pixels_alone(smoothing):
    scores, labels = batch()
    ones = torch.ones(3)
    total, weight = cross_entropy(*labelled(scores, labels), ones, smoothing)
    expected = F.cross_entropy(scores, labels, ignore_index=IGNORE, label_smoothing=smoothing)
    assert torch.allclose(total / weight, expected)
    assert weight == (labels != IGNORE).sum()
    elsewhere = torch.where((labels == IGNORE)[:, None], scores + 100, scores)
    assert torch.equal(cross_entropy(*labelled(elsewhere, labels), ones, smoothing)[0], total)


def test_a_weighted_loss_is_that_of_torch():
    scores, labels = batch()
    weights = torch.tensor([1.0, 2.0, 5.0])
    total, weight = cross_entropy(*labelled(scores, labels), weights, 0.0)
    assert torch.allclose(total / weight, F.cross_entropy(scores, labels, weights, ignore_index=IGNORE))


def test_sums_of_batches_are_the_sum_of_the_fold():
    scores, labels = batch()
    weights = torch.tensor([1.0, 2.0, 5.0])
    whole = cross_entropy(*labelled(scores, labels), weights, 0.0)
    parts = [cross_entropy(*labelled(scores[i : i + 1], labels[i : i + 1]), weights, 0.0) for i in range(2)]
    assert torch.allclose(whole[0], parts[0][0] + parts[1][0])


def test_balanced_weights_are_those_of_scikit_learn():
    from sklearn.utils.class_weight import compute_class_weight

    counts = [10, 3, 7]
    y = np.repeat(np.arange(3), counts)
    expected = compute_class_weight("balanced", classes=np.arange(3), y=y)
    assert np.allclose(class_weights(LossSettings(), counts, 3).numpy(), expected)


def test_a_class_without_training_pixels_has_weight_one():
    assert class_weights(LossSettings(), [10, 0, 10], 3).tolist() == [1.0, 1.0, 1.0]


def test_no_weights_and_given_weights():
    assert class_weights(LossSettings(class_weights="none"), [1, 9], 2).tolist() == [1.0, 1.0]
    assert class_weights(LossSettings(class_weights=[1, 4]), [1, 9], 2).tolist() == [1.0, 4.0]


@pytest.mark.parametrize(("weights", "words"), [([1.0], "1 weights, the legend has 2 classes"), ([0.0, 0.0], "all 0")])
def test_wrong_weights_are_refused(weights, words):
    with pytest.raises(ModelError, match=words):
        class_weights(LossSettings(class_weights=weights), [1, 1], 2)


@pytest.mark.parametrize(
    ("given", "drawn", "weights"),
    [("auto", True, "balanced"), ("auto", False, "none"), ("balanced", False, "balanced"), ([1, 2], True, [1, 2])],
)
def test_weights_follow_what_labels_are_unless_they_are_given(given, drawn, weights):
    assert LossSettings(class_weights=given).resolved(drawn=drawn).class_weights == weights
