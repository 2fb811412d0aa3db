"""Counts of neighbouring work, so that a reader sees what is added here."""

import math

from krratio.theory.counts.values import size

__all__ = ["convolutional_filter", "tensor_network_capacity"]


def convolutional_filter(*, filter_size: int, outputs: int = 0) -> int:
    """Order of samples for one convolution filter, then a linear layer: m + r.

    Du, Wang, Zhai, Balakrishnan, Salakhutdinov and Singh (2018), *How many samples are needed to
    estimate a convolutional neural network?*, up to logarithms; a fully connected network needs the
    order of its input dimension. A single filter: no channels, so no K and no R.

    Parameters
    ----------
    filter_size
        m.
    outputs
        r, weights of the linear layer; 0 for average pooling.
    """
    return size("filter_size", filter_size) + (size("outputs", outputs) if outputs else 0)


def tensor_network_capacity(*, parameters: int, vertices: int) -> float:
    """VC and pseudo-dimension of tensor-network classifiers: at most 2 N log2(12 |V|).

    Khavari and Rabusseau (2021), *Lower and upper bounds on the pseudo-dimension of tensor network
    models*. Base 2 is the logarithm with which the bound follows from Warren's theorem, by which m
    shattered points need 2^m <= (4 e |V| m / N)^N. It counts all N entries of the |V| cores, so it
    grows with K at fixed R, where the dimension does not.
    """
    return 2 * size("parameters", parameters) * math.log2(12 * size("vertices", vertices))
