"""Training of image classifiers by stochastic gradients: small networks, on the CPU, repeatably."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from krratio.experiments.datasets import Dataset
from krratio.experiments.seeds import torch_stream

__all__ = ["Images", "correct", "image_network", "initialized", "train_classifier"]

_BATCH = 100
_MOMENTUM, _DECAY = 0.9, 5e-4
_AT_ONCE = 1000  # test images in one forward


@dataclass(frozen=True, eq=False)
class Images:
    """Images of mean 0 and variance 1 over the set they are measured on, with their classes."""

    x: Float[Tensor, "n C H W"]
    y: Int[Tensor, " n"]

    @classmethod
    def of(
        cls,
        data: Dataset,
        *,
        like: Dataset | None = None,
        count: int | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> "Images":
        """Take the first ``count`` images of a data set, scaled by the statistics of ``like``.

        The embedded set's classes alternate, and the full sets are shuffled: the first images are
        as good as any.
        """
        whole = torch.as_tensor((data if like is None else like).images).to(torch.float64) / 255
        x = torch.as_tensor(data.images[:count]).to(torch.float64) / 255
        x = (x - whole.mean()) / whole.std()
        return cls(x.to(dtype), torch.as_tensor(data.labels[:count]))

    def __len__(self) -> int:
        return len(self.y)


def image_network(
    channels: Sequence[int], *, inputs: int = 1, classes: int = 10, kernel: int = 3
) -> nn.Module:
    """Convolutions with BatchNorm and ReLU, halved after each of the first two; mean; linear."""
    layers: list[nn.Module] = []
    for i, width in enumerate(channels):
        layers.append(nn.Conv2d(inputs, width, kernel, padding=kernel // 2, bias=False))
        layers += [nn.BatchNorm2d(width), nn.ReLU()]
        layers += [nn.MaxPool2d(2)] if i < 2 else []
        inputs = width
    head = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, classes)
    return nn.Sequential(*layers, *head)


def initialized(network: nn.Module, seed: int, *key: object) -> nn.Module:
    """Give a network new weights of torch's own initialization, which depend on the key alone."""
    with torch.random.fork_rng(devices=[]):
        torch.set_rng_state(torch_stream(seed, "weights", *key).get_state())
        for module in network.modules():
            if isinstance(reset := getattr(module, "reset_parameters", None), type(network.train)):
                reset()
    return network


def train_classifier(
    network: nn.Module, images: Images, *, epochs: float, rate: float, seed: int, key: object
) -> nn.Module:
    """Train in place: SGD with momentum, cross-entropy, a rate that falls to 0 along a cosine.

    Parameters
    ----------
    network
        In the dtype of the images; left in eval mode.
    images
        All that it is trained on.
    epochs
        Passes; a fraction stops within one.
    rate
        Learning rate at the start.
    seed, key
        Name the stream that draws the order of the images.

    Returns
    -------
    nn.Module
        The network.
    """
    optimizer = torch.optim.SGD(
        network.parameters(), lr=rate, momentum=_MOMENTUM, nesterov=True, weight_decay=_DECAY
    )
    steps = max(1, round(epochs * (len(images) // _BATCH)))
    network.train()
    for step, (x, y) in enumerate(_batches(images, steps, torch_stream(seed, "order", key))):
        for group in optimizer.param_groups:
            group["lr"] = rate * (1 + math.cos(math.pi * step / steps)) / 2
        optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(network(x), y).backward()
        optimizer.step()
    return network.eval()


def _batches(
    images: Images, steps: int, generator: torch.Generator
) -> Iterator[tuple[Tensor, Tensor]]:
    """Random batches, every image once in each pass."""
    done = 0
    while done < steps:
        order = torch.randperm(len(images), generator=generator)
        for batch in order.split(_BATCH)[: len(images) // _BATCH]:
            if done == steps:
                return
            yield images.x[batch], images.y[batch]
            done += 1


def correct(network: nn.Module, images: Images) -> int:
    """Images whose largest output is their class; the network in eval mode."""
    network.eval()
    with torch.no_grad():
        parts = zip(images.x.split(_AT_ONCE), images.y.split(_AT_ONCE), strict=True)
        return sum(int((network(x).argmax(1) == y).sum()) for x, y in parts)
