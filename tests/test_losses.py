"""Masked and weighted losses."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from models.losses import (
    IGNORE,
    LOSSES,
    REGRESSION_LOSSES,
    binary_cross_entropy,
    class_weights,
    cross_entropy,
    dice,
    focal,
    labelled,
    summed,
)
from models.network import ModelError
from models.settings import LossSettings
from tests.oracles_figures import dice_by_hand, focal_by_hand


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


WEIGHTS = torch.tensor([1.0, 2.0, 5.0])


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_focal_loss_is_its_sums(gamma, smoothing):
    scores, target = labelled(*batch())
    total, weight = focal(scores, target, WEIGHTS, smoothing, gamma)
    assert (float(total), float(weight)) == pytest.approx(
        focal_by_hand(scores, target, WEIGHTS, smoothing, gamma), rel=1e-5
    )


def test_without_gamma_focal_loss_is_cross_entropy():
    pixels = labelled(*batch())
    assert torch.allclose(focal(*pixels, WEIGHTS, 0.1, 0.0)[0], cross_entropy(*pixels, WEIGHTS, 0.1)[0])


@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_a_certain_pixel_has_a_finite_focal_gradient(gamma):
    scores = torch.tensor([[200.0, 0.0, 0.0], [0.0, 200.0, 0.0]], requires_grad=True)
    focal(scores, torch.tensor([0, 0]), torch.ones(3), 0.0, gamma)[0].backward()
    assert scores.grad.isfinite().all()


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_binary_cross_entropy_is_cross_entropy_of_two_classes(smoothing):
    g = torch.Generator().manual_seed(0)
    scores, target = torch.randn(50, 2, generator=g, requires_grad=True), torch.randint(2, (50,), generator=g)
    weights = torch.tensor([1.0, 3.0])
    one, two = (loss(scores, target, weights, smoothing) for loss in (binary_cross_entropy, cross_entropy))
    assert torch.allclose(one[0], two[0])
    assert one[1] == two[1]
    gradients = [torch.autograd.grad(total, scores)[0] for total, _ in (one, two)]
    assert torch.allclose(*gradients, atol=1e-6)
    # And the map's softmax is the sigmoid of that logit.
    assert torch.allclose(scores.softmax(1)[:, 1], (scores[:, 1] - scores[:, 0]).sigmoid())


def test_binary_cross_entropy_of_three_classes_is_refused():
    with pytest.raises(ModelError, match="binary_cross_entropy is for two classes, found 3"):
        binary_cross_entropy(*labelled(*batch()), WEIGHTS, 0.0)


@pytest.mark.parametrize("classes", [(0, 1, 2), (0, 2), (1,)])
def test_dice_is_its_sums_over_the_classes_that_are_there(classes):
    scores, target = labelled(*batch())
    keep = torch.isin(target, torch.tensor(classes))
    scores, target = scores[keep], target[keep]
    total, weight = dice(scores, target, WEIGHTS)
    assert float(weight) == pytest.approx(float(WEIGHTS[target].sum()))
    assert float(total / weight) == pytest.approx(dice_by_hand(scores, target, WEIGHTS), rel=1e-5)


def test_dice_of_a_perfect_map_is_nothing():
    target = torch.tensor([0, 1, 2, 2])
    assert float(dice(F.one_hot(target) * 50.0, target, WEIGHTS)[0]) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_pixels_without_a_label_and_classes_without_weight_teach_nothing(name):
    g = torch.Generator().manual_seed(3)
    scores = torch.randn(2, 2, 4, 4, generator=g, requires_grad=True)
    labels = torch.randint(-1, 2, (2, 4, 4), generator=g)
    loss = summed(LossSettings(name=name), LOSSES)
    total, weight = loss(*labelled(scores, labels), torch.tensor([1.0, 0.0]), LossSettings())
    (gradient,) = torch.autograd.grad(total, scores)
    assert (gradient.movedim(1, -1)[labels == IGNORE] == 0).all()
    assert (gradient.movedim(1, -1)[labels == 0] != 0).any()
    assert float(weight) == int((labels == 0).sum())
    total, weight = loss(*labelled(scores, labels), torch.zeros(2), LossSettings())
    assert (total.item(), weight.item()) == (0.0, 0.0)


def test_a_list_of_losses_is_their_sum():
    pixels = labelled(*batch())
    settings = LossSettings(name=["cross_entropy", "dice"])
    total, weight = summed(settings, LOSSES)(*pixels, WEIGHTS, settings)
    one, two = cross_entropy(*pixels, WEIGHTS, 0.0), dice(*pixels, WEIGHTS)
    assert torch.allclose(total / weight, one[0] / one[1] + two[0] / two[1])


def test_a_loss_for_something_else_is_refused_by_name():
    with pytest.raises(
        ModelError, match="found huber, which is not made for what is learnt here; allowed are cross_ent"
    ):
        summed(LossSettings(name=["dice", "huber"]), LOSSES)
    with pytest.raises(ModelError, match=r"found dice, .*allowed are mean_squared, absolute, huber"):
        summed(LossSettings(name="dice"), REGRESSION_LOSSES)
    assert summed(LossSettings(), REGRESSION_LOSSES)(torch.ones(1, 1), torch.zeros(1, 1), torch.ones(1), LossSettings())


@pytest.mark.parametrize(
    ("name", "each"),
    [
        ("mean_squared", lambda e: e * e),
        ("absolute", abs),
        ("huber", lambda e: 0.5 * e * e if abs(e) <= 0.7 else 0.7 * (abs(e) - 0.35)),
    ],
)
def test_losses_of_numbers_are_their_sums_over_what_is_known(name, each):
    g = torch.Generator().manual_seed(0)
    values, target = torch.randn(20, 2, generator=g, requires_grad=True), torch.randn(20, 2, generator=g)
    weights = torch.rand(20, generator=g)
    target[3, 1] = target[7] = float("nan")
    weights[5] = 0
    total, weight = REGRESSION_LOSSES[name](values, target, weights, LossSettings(name=name, delta=0.7))
    known = [(i, k) for i in range(20) for k in range(2) if target[i, k] == target[i, k]]
    assert total.item() == pytest.approx(
        sum(float(weights[i]) * each((values[i, k] - target[i, k]).item()) for i, k in known), rel=1e-5
    )
    assert float(weight) == pytest.approx(sum(float(weights[i]) for i, _ in known), rel=1e-5)
    (gradient,) = torch.autograd.grad(total, values)
    assert gradient.isfinite().all()
    assert (gradient[torch.isnan(target)] == 0).all()
    assert (gradient[5] == 0).all()
