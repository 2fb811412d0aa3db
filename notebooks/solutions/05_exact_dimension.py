"""Solutions to the exercises of chapter 05; each function asserts what it claims."""

import torch
from torch import nn

import krratio as kr


def exercise_1():
    """Sum of lengths less (layers - 1): a product of polynomials, each up to a scale.

    Without strides the chain is multiplication of polynomials of degrees 2, 1 and 3. Factors are
    determined up to scales whose product is 1: 9 - 2 = 7 = 6 + 1, all polynomials of degree 6. With
    strides the second and third are polynomials in z^2, and the dimension stays what it was.
    """
    for strides, length in (((1, 1, 1), 7), ((2, 1, 3), 11)):
        sizes = zip((3, 2, 4), strides, strict=True)
        chain = nn.Sequential(*[nn.Conv1d(1, 1, k, stride=s, bias=False) for k, s in sizes])
        found = kr.intrinsic_dimension(chain, (1, length))
        assert int(found) == 3 + 2 + 4 - 2
        assert found.certificate.theorem


def exercise_2():
    """No: tying removes the gauge together with the parameters.

    Apart, two 2 -> 2 convolutions of length 3 have 24 parameters and a gauge of 4 at the bond: 20.
    Tied, 12 parameters are left, and no continuous symmetry: the dimension is 12, not 10.
    """
    layers = [nn.Conv1d(2, 2, 3, bias=False) for _ in range(2)]
    apart = kr.intrinsic_dimension(nn.Sequential(*layers), (2, 9))
    tied = kr.intrinsic_dimension(nn.Sequential(layers[0], layers[0]), (2, 9))
    assert (int(apart), apart.parameters) == (20, 24)
    assert (int(tied), tied.parameters) == (12, 12)


def exercise_3():
    """A fixed weight that is a multiple of 3 is zero modulo 3, and the class collapses.

    The sketch uses a prime above 2^60, drawn at random: no fixed network can be made against it.
    """
    scale = nn.Linear(1, 1, bias=False)
    scale.weight = nn.Parameter(torch.tensor([[3.0]]), requires_grad=False)
    net = nn.Sequential(nn.Linear(4, 1, bias=False), scale)
    assert int(kr.intrinsic_dimension(net, (4,))) == 4
    assert all(int(entry) % 3 == 0 for entry in scale.weight.flatten())
    primes = {kr.intrinsic_dimension(net, (4,), seed=s).certificate.prime for s in range(5)}
    assert len(primes) == 5
    assert min(primes) > 2**60


def exercise_4():
    """L = 14, P = 3: 2 (14 + 3 - 2) = 30, less C (7 - 2·2) = 2·3 = 6, makes 24; ambient 2·11 = 22.

    The ambient space is smaller than 24: windows of length 7 at 0, 2 and 4 see 11 elements.
    """
    net = nn.Sequential(nn.Conv1d(2, 2, 7, stride=2, bias=False), nn.Flatten(), nn.Linear(6, 1))
    assert 2 * (14 + 3 - 2) - 2 * (7 - 2 * 2) == 24
    assert int(kr.intrinsic_dimension(net, (2, 11))) == min(24, 2 * 11) == 22
    assert kr.counts.overlap_dimension(C=2, l=(7,), K=2, p=(3,), step=(2,), T=1) == 22
