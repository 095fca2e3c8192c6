"""Random changes to samples: what belongs together changes together, and what is not valid stays out."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pipeline.samples import augment
from pipeline.samples.augment import augmented
from tests.oracles_samples import zoomed_by_hand

NAMES = ("flip", "rotate", "scale", "radiometric", "shift", "drop", "noise")


def batch(n=64, side=9, dates=5, share=0.8, seed=0):
    g = torch.Generator().manual_seed(seed)
    valid = torch.rand(n, dates, side, side, generator=g) < share
    cube = torch.randn(n, dates, 2, side, side, generator=g).masked_fill(~valid[:, :, None], 0.0)
    labels = torch.randint(-1, 3, (n, side, side), generator=g).masked_fill(~valid.any(1), -1)
    return {
        "cube": cube,
        "valid": valid,
        "time": (torch.arange(dates) * 10.0).repeat(n, 1),
        "labels": labels,
        "target": torch.where(labels < 0, torch.nan, labels.float())[:, None].repeat(1, 2, 1, 1),
    }


def chance(seed=0):
    return torch.Generator().manual_seed(seed)


def copied(given):
    return {name: value.clone() for name, value in given.items()}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("side", [1, 8, 9])
def test_what_is_not_valid_stays_zero_and_what_is_given_stays_as_it_was(name, side):
    given = batch(side=side)
    before = copied(given)
    made = augmented(given, (name,), chance())
    assert all(torch.equal(given[k].nan_to_num(9), before[k].nan_to_num(9)) for k in given)
    assert {k: (v.shape, v.dtype) for k, v in made.items()} == {k: (v.shape, v.dtype) for k, v in given.items()}
    assert (made["cube"][~made["valid"][:, :, None].expand_as(made["cube"])] == 0).all()
    assert (made["labels"][~made["valid"].any(1)] == -1).all()
    # A number and a class of the same pixel go the same way.
    assert torch.equal(made["target"][:, 1].nan_to_num(-1), made["labels"].float())
    same = all(torch.equal(made[k].nan_to_num(9), before[k].nan_to_num(9)) for k in given)
    assert same == (side == 1 and name in ("flip", "rotate", "scale"))


@pytest.mark.parametrize("side", [8, 9])
def test_scaling_is_that_of_each_chip_by_itself_pixel_by_pixel(side, monkeypatch):
    given = batch(6, side)
    factors = torch.tensor([0.81, 0.9, 1.0, 1.07, 1.19, 1.24])
    monkeypatch.setattr(torch, "rand", lambda *_, **__: (1 + torch.log(factors) / np.log(1.25)) / 2)
    made = augmented(given, ("scale",), chance())
    for i, factor in enumerate(factors.tolist()):
        cube, valid, labels = zoomed_by_hand(*(given[k][i].numpy() for k in ("cube", "valid", "labels")), factor)
        assert np.array_equal(made["valid"][i].numpy(), valid)
        assert np.array_equal(made["labels"][i].numpy(), labels)
        assert np.allclose(made["cube"][i].numpy(), cube, atol=1e-4)


def test_the_centre_of_an_odd_chip_stays_what_it_is_when_scaled():
    given = batch(side=9)
    made = augmented(given, ("flip", "rotate", "scale"), chance())
    for name in ("labels", "valid", "cube"):
        assert torch.allclose(made[name][..., 4, 4].float(), given[name][..., 4, 4].float(), atol=1e-5)
    assert not torch.equal(made["cube"], given["cube"])


def test_chips_are_scaled_up_as_often_as_down():
    given = batch(200, side=9, share=1.0)
    border = augmented(given, ("scale",), chance())["valid"][:, 0, 0, 0]
    assert 0.3 < border.float().mean() < 0.8


def test_a_band_has_one_gain_and_one_offset_at_all_dates():
    given = batch(400)
    made = augmented(given, ("radiometric",), chance())
    gains, offsets = [], []
    for i in range(400):
        for band in range(2):
            where = given["valid"][i]
            x, y = given["cube"][i, :, band][where].numpy(), made["cube"][i, :, band][where].numpy()
            gain, offset = np.polyfit(x, y, 1)
            assert np.allclose(y, gain * x + offset, atol=1e-4)
            gains.append(gain)
            offsets.append(offset)
    assert (np.mean(gains), np.std(gains)) == pytest.approx((1, 0.1), abs=0.015)
    assert (np.mean(offsets), np.std(offsets)) == pytest.approx((0, 0.1), abs=0.015)


def test_noise_is_drawn_for_each_value():
    given = batch()
    added = (augmented(given, ("noise",), chance())["cube"] - given["cube"])[
        given["valid"][:, :, None].expand_as(given["cube"])
    ]
    assert (added.mean().item(), added.std().item()) == pytest.approx((0, augment._NOISE), abs=0.002)
    assert len(added.unique()) > 0.9 * len(added)


def test_all_dates_are_shifted_by_the_same_whole_days():
    given = batch(500, side=1)
    made = augmented(given, ("shift",), chance())
    days = made["time"] - given["time"]
    assert (days == days[:, :1]).all()
    assert set(days[:, 0].tolist()) == set(range(-15, 16))
    assert torch.equal(made["cube"], given["cube"])


@pytest.mark.parametrize("side", [1, 4])
def test_dates_are_dropped_by_chance_and_one_with_data_stays(side):
    given = batch(2000, side, dates=2, share=0.4)
    made = augmented(given, ("drop",), chance(1))
    before, after = (b["valid"].flatten(2).any(2) for b in (given, made))
    assert torch.equal(before.any(1), after.any(1))
    assert not (after & ~before).any()
    # Whole dates, or nothing.
    lost = before & ~after
    assert torch.equal(made["valid"], given["valid"] & ~lost[:, :, None, None])
    # Of two dates with data the lower draw goes with a fifth's chance, which is twice one fifth less both: 1 - 0.8^2.
    both = before.all(1)
    assert lost[both].any(1).float().mean().item() == pytest.approx(1 - 0.8**2, abs=0.06)
    assert not lost[~both].any()
    assert (made["labels"][made["valid"].any(1)] == given["labels"][made["valid"].any(1)]).all()


def test_the_same_seed_changes_samples_alike():
    given = batch()
    found = []
    for seed in (1, 1, 2):
        torch.rand(17)  # of no account
        found.append(augmented(given, NAMES, chance(seed))["cube"])
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])
