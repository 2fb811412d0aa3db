"""Every formula against brute force on unequal sizes, and networks against their formulas."""

import inspect
import itertools
import math
from dataclasses import replace

import pytest
from torch import nn

import krratio as kr
from krratio.theory.counts import expected_cp_dimension, tt_ranks, tucker_ranks
from multilinear import dimension
from random_networks import Residual

LETTERS = "abcdefgh"


def cnn_dimension(L, K, P):
    return dimension("lk,kp->lp", [(L, K), (K, P)])


def tucker_dimension(l, R_j, R, K, P):
    modes, cores = LETTERS[: len(l)], LETTERS[: len(l)].upper()
    terms, shapes, core = [], [], ""
    for mode, inner, n, r in zip(modes, cores, l, R_j, strict=True):
        core += mode if r is None else inner
        if r is not None:
            terms.append(mode + inner)
            shapes.append((n, r))
    core_shape = [n if r is None else r for n, r in zip(l, R_j, strict=True)]
    equation = ",".join([core + "r", *terms, "kr", "kp"]) + f"->{modes}p"
    return dimension(equation, [(*core_shape, R), *shapes, (K, R), (K, P)])


def cp_network_dimension(l, R, K, P):
    modes = LETTERS[: len(l)]
    equation = ",".join([*(m + "r" for m in modes), "kr", "kp"]) + f"->{modes}p"
    return dimension(equation, [*((n, R) for n in l), (K, R), (K, P)])


def cp_tensor_dimension(modes, R):
    letters = LETTERS[: len(modes)]
    equation = ",".join(m + "r" for m in letters) + f"->{letters}"
    return dimension(equation, [(n, R) for n in modes])


def tt_dimension(n, r):
    bonds, modes = LETTERS[: len(r)].upper(), LETTERS[: len(n)]
    terms = [("Z" + bonds)[i] + m + (bonds + "Y")[i] for i, m in enumerate(modes)]
    ends = (1, *r, 1)
    shapes = [(ends[i], size, ends[i + 1]) for i, size in enumerate(n)]
    return dimension(",".join(terms) + f"->{modes}", shapes)


@pytest.mark.parametrize(("L", "K", "P"), [(6, 1, 4), (6, 3, 4), (6, 4, 4), (6, 9, 4), (3, 2, 7)])
def test_a_plain_network(L, K, P):
    counts = kr.counts.cnn(l=(L,), K=K, P=P)
    assert counts.intrinsic == cnn_dimension(L, K, P)
    assert counts.naive == K * (L + P)
    r = min(K, L, P)
    assert counts.covering == r * (L + P + 1) >= counts.folded >= counts.intrinsic
    if r == K:
        assert counts.redundancy == -K


TUCKER = [
    ((5, 4), (2, 3), 4, 8, 6),
    ((5, 4), (2, 3), 4, 2, 6),  # K < R
    ((3, 5), (2, None), 3, 4, 7),
    ((3, 2, 4), (2, None, None), 5, 6, 7),
    ((5, 5), (2, 2), 5, 7, 9),  # R beyond the product of the others
    ((7, 2), (6, None), 2, 3, 5),  # R_1 beyond the product of the others
    ((9, 2), (None, None), 2, 2, 3),  # an uncompressed mode whose rank is smaller than it is
    ((3, 4), (2, 3), 9, 9, 3),  # all positions used
]


@pytest.mark.parametrize(("l", "R_j", "R", "K", "P"), TUCKER)
def test_a_tucker_network(l, R_j, R, K, P):
    counts = kr.counts.tucker(l=l, R_j=R_j, R=R, K=K, P=P)
    assert counts.intrinsic == tucker_dimension(l, R_j, R, K, P)
    assert counts.intrinsic <= counts.covering <= counts.naive
    assert counts.intrinsic <= counts.ambient


def test_ranks_that_cannot_be_attained_are_lowered():
    assert tucker_ranks((5, 5, 9), (2, 2, 5)) == (2, 2, 4)
    assert kr.counts.tucker(l=(5, 5), R_j=(2, 2), R=5, K=5, P=9).intrinsic == 48
    assert tt_ranks((2, 3, 4, 2), (5, 9, 7)) == (2, 6, 2)


@pytest.mark.parametrize("K", [4, 8, 12])
def test_the_redundancy_of_tucker_is_linear_in_the_expansion(K):
    R, P = 4, 9
    counts = kr.counts.tucker(l=(5, 5), R_j=(2, 3), R=R, K=K, P=P)
    assert counts.redundancy == K * R + (K - R) * P
    assert (counts.intrinsic, counts.covering) == (56, 85)


CP = [
    ((3, 4), 2, 5, 6),
    ((3, 4), 3, 2, 6),  # K < R
    ((2, 3), 4, 3, 5),  # K < R, and the first part saturates
    ((3, 2, 4), 3, 3, 5),
    ((3, 2, 4), 4, 2, 7),
    ((2, 3), 5, 5, 9),  # unbalanced: the positions are many
    ((9, 2), 3, 4, 2),  # unbalanced in a kernel mode
    ((2, 2), 7, 7, 3),  # fills everything
    ((3, 3), 4, 4, 3),  # sporadic
]


@pytest.mark.parametrize(("l", "R", "K", "P"), CP)
def test_a_cp_network(l, R, K, P):
    counts = kr.counts.cp(l=l, R=R, K=K, P=P)
    assert counts.intrinsic == cp_network_dimension(l, R, K, P)
    assert counts.naive == R * (sum(l) + K) + K * P
    assert counts.covering >= counts.folded >= counts.intrinsic
    k, volume = min(K, R, P), math.prod(l)
    assert counts.covering == k * R ** len(l) + R * sum(l) + k * P
    assert counts.folded == R * (sum(l) + P) - (R * P - k * (R + P) if k < min(R, P) else 0)
    assert (counts.ambient, counts.format) == (volume * P, "cp")


def test_the_counts_of_a_cp_network_by_hand():
    counts = kr.counts.cp(l=(3, 4), R=2, K=5, P=6)
    numbers = (counts.naive, counts.covering, counts.folded, counts.intrinsic, counts.ambient)
    assert numbers == (54, 8 + 14 + 12, 26, 22, 72)
    narrow = kr.counts.cp(l=(3, 4), R=3, K=2, P=6)
    assert (narrow.naive, narrow.covering, narrow.folded) == (39, 18 + 21 + 12, 27 + 12)


SPORADIC = [
    ((3, 3, 3), 4, 26),
    ((3, 4, 4), 5, 44),
    ((2, 2, 2, 2), 3, 14),
    ((2, 2, 3, 3), 5, 34),
]


@pytest.mark.parametrize(("modes", "rank", "value"), SPORADIC)
def test_sporadic_defects_of_cp(modes, rank, value):
    assert kr.counts.cp_dimension(modes, rank) == value == cp_tensor_dimension(modes, rank)
    assert value < expected_cp_dimension(modes, rank)


@pytest.mark.parametrize(
    ("modes", "rank", "value"),
    [
        ((7,), 2, 7),
        ((3, 5), 2, 2 * (8 - 2)),
        ((5, 3), 3, 15),
        ((1, 4, 6), 3, 3 * (10 - 3)),  # a mode of size one is none
        ((3, 6, 6), 8, 8 * (15 - 2)),  # of even size: no defect
        ((2, 3, 9), 5, 5 * (6 + 9 - 5)),  # unbalanced
        ((2, 3, 9), 6, 54),
    ],
)
def test_dimensions_of_cp_by_hand(modes, rank, value):
    assert kr.counts.cp_dimension(modes, rank) == value == cp_tensor_dimension(modes, rank)


def test_every_small_cp_format_has_the_tabulated_dimension():
    """All formats of 3 modes up to 4 and 4 modes up to 3, every rank up to filling."""
    formats = [*itertools.combinations_with_replacement(range(2, 5), 3)]
    formats += [m for m in itertools.combinations_with_replacement(range(2, 4), 4) if sum(m) < 11]
    for modes in formats:
        for rank in range(1, 12):
            value = kr.counts.cp_dimension(modes, rank)
            assert value == cp_tensor_dimension(modes, rank), (modes, rank)
            full = 1
            for n in modes:
                full *= n
            if value == full:
                break


def test_the_classical_covering_exponent_of_cp_can_exceed_the_naive_count():
    counts = kr.counts.cp(l=(3, 3, 3), R=6, K=6, P=4)
    assert counts.covering > counts.naive
    assert counts.folded <= counts.naive


@pytest.mark.parametrize(
    ("n", "r"), [((6, 4, 5), (3, 2)), ((6, 4, 5), (6, 9)), ((2, 3, 4, 2), (5, 9, 7)), ((4,), ())]
)
def test_a_tensor_train(n, r):
    counts = kr.counts.tt(n=n, r=r)
    assert counts.intrinsic == tt_dimension(n, r)
    assert counts.intrinsic <= counts.covering <= counts.naive


def conv(inputs, outputs, kernel=1, **options):
    return nn.Conv2d(inputs, outputs, kernel, bias=False, **options)


def test_networks_have_the_counts_of_their_format():
    head = nn.AvgPool2d(4), nn.Flatten()
    tucker = nn.Sequential(
        conv(4, 2), conv(2, 3, 3), conv(3, 9), *head, nn.Linear(36, 1, bias=False)
    )
    assert kr.count(tucker, (4, 10, 10)) == kr.counts.tucker(
        l=(4, 3, 3), R_j=(2, None, None), R=3, K=9, P=4
    )
    depthwise = conv(3, 3, (3, 2), groups=3)
    cp = nn.Sequential(conv(4, 3), depthwise, conv(3, 5), nn.Flatten(), nn.Linear(100, 2))
    formula = kr.counts.cp(l=(4, 6), R=3, K=5, P=40)
    assert kr.count(cp, (4, 7, 5)) == replace(formula, ambient=2 * 4 * 7 * 5)
    plain = nn.Sequential(conv(2, 3, (3, 2)), *head, nn.Linear(12, 5))
    assert kr.count(plain, (2, 10, 9)) == kr.counts.cnn(l=(2, 3, 2), K=3, P=20)
    deep = nn.Sequential(conv(2, 3, (3, 2)), conv(3, 4, 2), nn.Flatten(), nn.Linear(16, 5))
    formula = kr.counts.tt(n=(12, 4, 20), r=(3, 4))
    assert kr.count(deep, (2, 5, 4)) == replace(formula, ambient=5 * 2 * 5 * 4)


def test_the_ambient_space_is_that_of_the_function_where_patches_overlap():
    plain = nn.Sequential(conv(1, 30, 3), nn.Flatten(), nn.Linear(30 * 4, 1, bias=False))
    assert kr.count(plain, (1, 4, 4)).ambient == 16 < 9 * 4


def test_other_networks_are_counted_by_their_channel_edges():
    block = Residual(conv(3, 3, 3, padding=1), nn.Identity())
    net = nn.Sequential(conv(2, 3, 2), block, nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(48, 5))
    counts = kr.count(net.eval(), (2, 5, 5))
    assert counts.format == "network"
    assert counts.naive == 24 + 81 + 3 + 240
    assert int(kr.intrinsic_dimension(net, (2, 5, 5))) <= counts.ambient < counts.intrinsic
    with_offsets = kr.count(net, (2, 5, 5), bias=True)
    assert with_offsets.naive == counts.naive + 3 + 5


def test_a_stack_of_linear_layers_has_the_dimension_of_matrices_of_the_smallest_rank():
    net = nn.Sequential(*(nn.Linear(*sizes, bias=False) for sizes in ((5, 2), (2, 4), (4, 3))))
    counts = kr.count(net, (5,))
    assert counts.format == "network"
    assert counts.naive == 10 + 8 + 12
    assert counts.intrinsic == 2 * (5 + 3 - 2)
    assert counts.ambient == 15


def test_the_scales_of_batchnorm_are_parameters_of_a_plain_network():
    layers = conv(2, 3, (3, 2)), nn.BatchNorm2d(3), nn.AvgPool2d(4), nn.Flatten()
    net = nn.Sequential(*layers, nn.Linear(12, 5, bias=False)).eval()
    formula = kr.counts.cnn(l=(2, 3, 2), K=3, P=20)
    assert kr.count(net, (2, 10, 9)) == replace(formula, naive=formula.naive + 3)


def test_shared_weights_are_counted_once_and_by_no_formula():
    shared = conv(2, 2, 2)
    net = nn.Sequential(shared, shared, nn.Flatten(), nn.Linear(8, 3, bias=False))
    counts = kr.count(net, (2, 4, 4))
    assert (counts.naive, counts.format) == (16 + 24, "network")


def test_the_count_of_a_network_needs_no_weights():
    def network():
        return nn.Sequential(conv(4, 2), conv(2, 3, 3), nn.Flatten(), nn.Linear(12, 3))

    assert kr.count(network().to("meta"), (4, 4, 4)) == kr.count(network(), (4, 4, 4))


@pytest.mark.parametrize("name", ["cnn", "cp", "tt", "tucker", "overlap_dimension"])
def test_sizes_are_given_by_name(name):
    parameters = inspect.signature(getattr(kr.counts, name)).parameters.values()
    assert {p.kind for p in parameters} == {inspect.Parameter.KEYWORD_ONLY}


def test_the_defaults_are_those_of_the_docs():
    limits = {kr.count: 8, kr.intrinsic_dimension: 8, kr.tensorize: 4}
    for function, gibibytes in limits.items():
        parameters = inspect.signature(function).parameters
        assert parameters["max_bytes"].default == gibibytes * 2**30
        assert "bias" not in parameters or parameters["bias"].default is False
    assert inspect.signature(kr.intrinsic_dimension).parameters["seed"].default == 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: kr.counts.cnn(l=(3, 0), K=2, P=2), r"l\[1\]=0: an integer of at least 1"),
        (lambda: kr.counts.cnn(l=(), K=2, P=2), r"l=\(\): a tuple of integers"),
        (lambda: kr.counts.tucker(l=(3, 4), R_j=(2,), R=2, K=2, P=2), "1 ranks for 2 kernel modes"),
        (lambda: kr.counts.tt(n=(3, 4), r=(2, 2)), "one bond between each two modes"),
        (lambda: kr.counts.cp(l=(3,), R=True, K=2, P=2), "R=True"),
    ],
)
def test_bad_integers_are_refused_by_name(call, message):
    with pytest.raises(ValueError, match=message):
        call()
