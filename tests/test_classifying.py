"""Training of classifiers is repeatable, and the trial of decompositions has its controls."""

import pandas as pd
import pytest
import torch

import krratio as kr
from krratio.experiments.classifying import (
    Images,
    correct,
    image_network,
    initialized,
    train_classifier,
)
from krratio.rewriting.trial import Trial, over_seeds, tuned_over_scratch, with_intervals


@pytest.fixture(scope="module")
def images():
    data = [kr.datasets.load("fashion-mnist-subset", split) for split in ("train", "test")]
    options = {"like": data[0], "dtype": torch.float64}
    return Images.of(data[0], count=600, **options), Images.of(data[1], count=500, **options)


def test_images_have_mean_0_and_variance_1_over_their_set(images):
    data = kr.datasets.load("fashion-mnist-subset", "train")
    whole = Images.of(data, dtype=torch.float64)
    assert float(whole.x.mean()) == pytest.approx(0, abs=1e-9)
    assert float(whole.x.std()) == pytest.approx(1, rel=1e-9)
    assert torch.equal(images[0].x, whole.x[:600])


def test_weights_depend_on_seed_and_key_alone_and_use_no_random_number():
    state = torch.get_rng_state()
    nets = [image_network((3, 4)) for _ in range(3)]
    torch.set_rng_state(state)
    for net, seed in zip(nets, (1, 1, 2), strict=True):
        initialized(net, seed, "a")
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(nets[0][0].weight, nets[1][0].weight)
    assert not torch.equal(nets[0][0].weight, nets[2][0].weight)


def test_training_learns_and_is_the_same_again(images):
    train, test = images
    nets = []
    for _ in range(2):
        net = initialized(image_network((8, 16)), 0).double()
        before = correct(net, test)
        nets.append(train_classifier(net, train, epochs=12, rate=0.1, seed=0, key="t"))
    assert torch.equal(nets[0][0].weight, nets[1][0].weight)
    assert not nets[0].training
    assert before < 0.2 * len(test) < 0.4 * len(test) < correct(nets[0], test)


def test_an_order_of_images_has_every_image_once_in_a_pass(images):
    """A network without weights to learn but a bias per image would see it; count the batches."""
    train = Images(images[0].x[:300], images[0].y[:300])
    seen = []

    class Watched(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.bias = torch.nn.Parameter(torch.zeros(10, dtype=torch.float64))

        def forward(self, x):
            seen.extend(x.sum((1, 2, 3)).tolist())
            return self.bias.expand(len(x), 10)

    train_classifier(Watched(), train, epochs=2, rate=0.1, seed=0, key="order")
    sums = sorted(train.x.sum((1, 2, 3)).tolist())
    assert sorted(seen[:300]) == pytest.approx(sums)
    assert sorted(seen[300:]) == pytest.approx(sums)
    assert seen[:300] != seen[300:]


@pytest.fixture(scope="module")
def rows(images):
    trial = Trial((4, 8, 12), methods=("tucker", "tt"), shares=(0.5,), epochs=2, seed=3)
    return trial.run(*images)


def test_a_trial_has_every_stage_and_its_controls(rows):
    found = rows.groupby(["method", "share"])["stage"].apply(list).to_dict()
    assert found[("none", 1.0)] == ["trained", "tuned"]
    assert found[("tucker", 0.5)] == found[("tt", 0.5)] == ["decomposed", "tuned", "scratch"]
    small = rows[rows["method"] != "none"]
    sizes = small.groupby("method")["parameters"].agg(["min", "max"])
    assert (sizes["min"] == sizes["max"]).all()
    assert small["parameters"].max() < rows["parameters"].max()
    assert (small["error"] > 0).all()
    assert (rows["accuracy"] == rows["correct"] / rows["images"]).all()


def test_intervals_hold_the_share(rows):
    found = with_intervals(rows)
    assert (found["low"] < found["accuracy"]).all()
    assert (found["accuracy"] < found["high"]).all()


def test_losses_and_gains_are_paired_by_seed():
    rows = pd.DataFrame(
        [
            (seed, method, share, stage, 10, 20, accuracy)
            for seed, shift in ((0, 0.0), (1, 0.1))
            for method, share, stage, accuracy in (
                ("none", 1.0, "trained", 0.5 + shift),
                ("none", 1.0, "tuned", 0.6 + shift),
                ("tt", 0.5, "tuned", 0.58 + shift),
                ("tt", 0.5, "scratch", 0.53 + 2 * shift),
            )
        ],
        columns=["seed", "method", "share", "stage", "parameters", "macs", "accuracy"],
    )
    means = over_seeds(rows).set_index(["method", "stage"])
    assert means.loc[("tt", "tuned"), "loss"] == pytest.approx(2)
    width = means.loc[("tt", "tuned"), "loss_high"] - means.loc[("tt", "tuned"), "loss_low"]
    assert width == pytest.approx(0, abs=1e-9)  # the seeds differ, their losses do not
    gain = tuned_over_scratch(rows).iloc[0]
    assert gain["gain"] == pytest.approx(0, abs=1e-9)  # 5 points and -5
    assert gain["gain_low"] < 0 < gain["gain_high"]
