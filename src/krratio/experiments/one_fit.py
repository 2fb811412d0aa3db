"""One least-squares fit of one network: the smallest experiment that a sweep can run."""

import torch
from torch import nn

from krratio.experiments.estimators import fit
from krratio.experiments.seeds import torch_stream
from krratio.experiments.statistics import Statistics
from krratio.theory.dimension import intrinsic_dimension

__all__ = ["bottleneck", "one_fit"]

SHAPE = (2, 6, 9)
"""Colours, height and width of the images."""


def bottleneck(R: int, K: int) -> nn.Sequential:
    """Return a 3×3 convolution to R channels, an expansion to K, and one linear output; no bias.

    Its windows do not overlap, so that the dimension is R (18 + 6 − R) for R ≤ 6.
    """
    layers = nn.Conv2d(SHAPE[0], R, 3, stride=3, bias=False), nn.Conv2d(R, K, 1, bias=False)
    last = nn.Linear(K * SHAPE[1] * SHAPE[2] // 9, 1, bias=False)
    return nn.Sequential(*layers, nn.Flatten(), last).double()


def one_fit(
    R: int, ratio: int, samples: int, seed: int, *, noise: float = 0.1, starts: int = 6
) -> dict[str, float | int]:
    """Fit a bottleneck network with K = ratio · R to the noisy outputs of another one with K = R.

    Parameters
    ----------
    R
        Bottleneck channels, of truth and model.
    ratio
        K/R of the model.
    samples
        n, images of independent standard Gaussian entries.
    seed
        Of truth, images, noise and starts.
    noise
        σ.
    starts
        Random starts of the solver; the best end is kept.

    Returns
    -------
    dict
        ``K``; ``dimension`` d of the model's class, with the intercept; ``risk``, n · err² / (σ² d)
        in the sample, which has mean 1 by the law; ``loss`` of the fit, and ``converged``.
    """
    K = ratio * R
    key = ("one fit", R, samples)  # not the ratio: all K see the same data
    generator = torch_stream(seed, *key)
    truth = bottleneck(R, R)
    for parameter in truth.parameters():
        fan_in = parameter[0].numel()
        values = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        parameter.data = values / fan_in**0.5
    images = torch.randn(samples, *SHAPE, generator=generator, dtype=torch.float64)
    with torch.no_grad():
        clean = truth(images)
    observed = clean + noise * torch.randn(clean.shape, generator=generator, dtype=torch.float64)
    statistics = Statistics.from_batches([(images[..., None], observed)])
    model = bottleneck(R, K)
    found = fit(statistics, model, starts=starts, seed=seed)
    fitted = images.flatten(1) @ found.weight[:, 0, :] + found.bias
    dimension = intrinsic_dimension(model, SHAPE).value + 1  # and the intercept
    return {
        "K": K,
        "dimension": dimension,
        "risk": float(((fitted - clean) ** 2).sum()) / (noise**2 * dimension),
        "loss": found.loss,
        "converged": found.converged,
    }
