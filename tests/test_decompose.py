"""Decomposition: convolutions as low-rank blocks, by the theory's guarantees, or with a reason."""

import copy
import itertools
import math

import numpy as np
import pytest
import tensorly
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize
from tensorly.cp_tensor import CPTensor
from tensorly.decomposition import parafac
from torch import nn
from torch.nn.utils import parametrizations, prune

import krratio as kr
from krratio.errors import NonFiniteError
from krratio.rewriting.decomposing.canonical import SLACK, canonical, least_squares, stabilized
from krratio.rewriting.decomposing.ranks import along_ray, cheapest, coupled
from krratio.rewriting.decomposing.spectra import left_svd, tails
from krratio.rewriting.decomposing.stable import _step, stable
from krratio.rewriting.decomposing.terms import degeneracy, energies, products, summed
from krratio.rewriting.decomposing.train import train
from krratio.rewriting.decomposing.tucker import bases, tucker
from krratio.rewriting.errors import DecomposeError

CONV = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
METHODS = ["tucker", "cp", "tt"]


def generator(seed):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def layer(K, C, window, *, groups=1, weight=None, bias=True, **options):
    """A float64 convolution of N modes with Gaussian values."""
    conv = CONV[len(window)](C, K, window, groups=groups, bias=bias, dtype=torch.float64, **options)
    with torch.no_grad():
        conv.weight.copy_(normal(*conv.weight.shape) if weight is None else weight)
        if bias:
            conv.bias.copy_(normal(K, seed=1))
    return conv


def exact(method, K, C, window, groups):
    """A kernel of exactly the ranks that it comes with, all groups different."""
    N, one = len(window), (1,) * len(window)
    kernels = []
    for seed in range(groups):
        if method == "tucker":
            ranks = (2, 3)
            core = normal(3, 2, *window, seed=seed)
            U, V = normal(K // groups, 3, seed=seed + 50), normal(2, C // groups, seed=seed + 60)
            kernel = torch.einsum("ks,sr...,rc->kc...", U, core, V)
        elif method == "cp":
            ranks = (2,)
            U, V = normal(K // groups, 2, seed=seed + 50), normal(2, C // groups, seed=seed + 60)
            kernel = torch.einsum("kr,r...,rc->kc...", U, normal(2, *window, seed=seed), V)
        else:
            ranks, bonds = (2, 3)[: N - 1], (C // groups, *(2, 3)[: N - 1], K // groups)
            kernel = torch.eye(bonds[0], dtype=torch.float64).reshape(bonds[0], bonds[0], *one)
            for j, size in enumerate(window):
                alone = [size if i == j else 1 for i in range(N)]
                core = normal(bonds[j + 1], bonds[j], *alone, seed=seed + 70 + j)
                kernel = torch.einsum("om...,mi...->oi...", core, kernel)
        kernels.append(kernel)
    return torch.cat(kernels), ranks


def difference(one, other, *shape):
    x = normal(*shape, seed=9)
    with torch.no_grad():
        expected, found = one(x), other(x)
    assert expected.shape == found.shape
    return float((expected - found).norm() / expected.norm())


GEOMETRIES = {
    "groups, strides, dilations, paddings, all unequal": (
        (3, 5),
        {"groups": 2, "stride": (2, 3), "dilation": (2, 1), "padding": (1, 4)},
    ),
    "reflect": ((3, 5), {"stride": (1, 2), "padding": (2, 3), "padding_mode": "reflect"}),
    "replicate": ((5, 2), {"groups": 2, "padding": (2, 3), "padding_mode": "replicate"}),
    "circular": ((3, 4), {"padding": (3, 1), "padding_mode": "circular", "dilation": (1, 2)}),
    "same, even kernels": ((3, 4), {"padding": "same", "dilation": (1, 3), "groups": 2}),
    "same, circular": ((4, 2), {"padding": "same", "padding_mode": "circular"}),
    "valid": ((2, 5), {"padding": "valid", "stride": (3, 1)}),
    "a window of size one along one mode": ((1, 7), {"stride": (2, 3), "padding": (1, 0)}),
    "three modes": ((3, 2, 4), {"stride": (1, 2, 3), "padding": (2, 0, 1), "groups": 2}),
    "three modes, reflect": ((2, 3, 3), {"padding": (1, 2, 0), "padding_mode": "reflect"}),
    "one mode": ((5,), {"stride": (3,), "dilation": (2,), "padding": (4,), "groups": 2}),
}


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")  # of the layer itself
@pytest.mark.parametrize(
    ("method", "geometry"),
    [pair for pair in itertools.product(METHODS, GEOMETRIES) if pair != ("tt", "one mode")],
)
def test_at_the_rank_of_the_kernel_the_block_is_the_layer(method, geometry):
    window, options = GEOMETRIES[geometry]
    groups = options.get("groups", 1)
    K, C = 24, 16
    weight, ranks = exact(method, K, C, window, groups)
    conv = layer(K, C, window, weight=weight, **options)
    found = kr.decompose(conv, method=method, rank=ranks)
    row = found.report.iloc[0]
    assert (row["reason"], row["rank"]) == ("", ranks)
    tolerance = 1e-5 if method == "cp" else 1e-10  # alternating least squares end early
    assert row["error"] < tolerance
    size = [17, 19, 14][: len(window)]
    assert difference(conv, found.model, 2, C, *size) < tolerance


@pytest.mark.parametrize("method", ["tucker", "tt"])
def test_cut_blocks_apply_exactly_the_kernel_that_the_error_is_of(method):
    conv = layer(12, 8, (3, 5), groups=2, stride=(2, 3), dilation=(2, 1), padding=(1, 4))
    found = kr.decompose(conv, method=method, rank=2)
    plain = copy.deepcopy(conv)
    names = [name for name, _ in found.model.named_children()]
    weights = [part.weight.detach() for part in found.model]
    grouped = [w.reshape(2, len(w) // 2, *w.shape[1:]) for w in weights]
    kernel = grouped[0]
    for weight in grouped[1:]:
        kernel = torch.einsum("gom...,gmi...->goi...", weight, kernel)
    with torch.no_grad():
        plain.weight.copy_(kernel.flatten(0, 1))
    assert difference(plain, found.model, 2, 8, 17, 19) < 1e-13
    error = (conv.weight.detach() - kernel.flatten(0, 1)).norm() / conv.weight.detach().norm()
    assert found.report["error"][0] == pytest.approx(float(error), rel=1e-9)
    assert names == (
        ["reduce", "spatial", "expand"] if method == "tucker" else ["along_1", "along_2"]
    )


def test_a_train_of_two_modes_is_eckart_young():
    kernel = normal(1, 7, 3, 4, 5)
    sizes = torch.linalg.svdvals(kernel[0].permute(1, 2, 3, 0).reshape(12, 35))
    for bond in range(1, 12):
        cores = train(kernel, (bond,))
        near = torch.einsum("gcar,grbk->gkcab", *cores)
        assert float((near - kernel).norm()) == pytest.approx(float(sizes[bond:].norm()), rel=1e-10)


def test_iteration_is_never_worse_than_the_hosvd_and_its_bound_holds():
    kernel = normal(1, 9, 7, 6)
    start = bases(kernel)
    inner, out = tails(start[1][1], 54), tails(start[0][1], 42)
    for R, S in ((1, 1), (1, 6), (3, 8), (6, 4), (6, 1), (7, 9)):
        U, core, V = tucker(kernel, (R, S), start)
        error = float((kernel - torch.einsum("gks,gsrl,gcr->gkcl", U, core, V)).norm())
        P, Q = start[0][0][..., :S], start[1][0][..., :R]
        first = torch.einsum("gks,gts,gtdl,gdr,gcr->gkcl", P, P, kernel, Q, Q)
        truncated = float((kernel - first).norm())
        assert error <= truncated * (1 + 1e-12)
        assert truncated**2 <= inner[R] + out[S] + 1e-9


def test_iteration_falls_back_on_the_hosvd_when_lapack_gives_up(monkeypatch):
    def fail(*_args, **_options):
        raise torch.linalg.LinAlgError("did not converge")

    monkeypatch.setattr("krratio.rewriting.decomposing.tucker.partial_tucker", fail)
    kernel = normal(1, 5, 4, 3)
    U, core, V = tucker(kernel, (4, 5), bases(kernel))
    assert torch.allclose(torch.einsum("gks,gsrl,gcr->gkcl", U, core, V), kernel)


@pytest.mark.parametrize("shape", [(2, 5, 3), (1, 4, 9), (3, 6, 6)])
def test_left_singular_vectors_need_no_right_ones(shape):
    matrices = normal(*shape)
    left, sizes = left_svd(matrices)
    torch.testing.assert_close(sizes, torch.linalg.svdvals(matrices))
    rest = (left.mT @ matrices).norm(dim=2)
    torch.testing.assert_close(rest, sizes)


@pytest.mark.parametrize(
    ("method", "window", "groups", "share"),
    [
        (*case, share)
        for case in (
            ("tucker", (3, 2), 2),
            ("tt", (3, 4), 2),
            ("tt", (2, 3, 4), 1),
            ("cp", (3, 2), 2),
        )
        for share in (0.3, 0.8, 0.99, 1)
        if (case[0], share) != ("cp", 1)  # no iteration ends at an error of zero
    ],
)
def test_the_energy_asked_for_is_kept(method, window, groups, share):
    """Kernels with a decaying spectrum; the whole grouped kernel counts."""
    weight, _ = exact(method, 24, 16, window, groups)
    noise = 0 if share == 1 else 0.02
    conv = layer(24, 16, window, groups=groups, weight=weight + noise * normal(*weight.shape))
    found = kr.decompose(conv, method=method, rank=f"energy:{share}").report.iloc[0]
    assert found["reason"] == ""
    assert found["error"] ** 2 <= 1 - share + 1e-20


@given(
    sizes=st.tuples(st.integers(2, 7), st.integers(2, 7)),
    coupling=st.integers(1, 3),
    budget=st.floats(0, 2),
    seed=st.integers(0, 99),
)
def test_the_energy_budget_is_split_as_the_smallest_block_asks(sizes, coupling, budget, seed):
    """By exhaustion: of all attainable pairs whose bound is within the budget, the cheapest."""
    rng = np.random.default_rng(seed)
    left_out = [np.append(np.cumsum(rng.random(n))[::-1], 0.0) for n in sizes]
    most = coupled(sizes, sizes, coupling)

    def count(ranks):
        return 5 * ranks[0] + 3 * ranks[0] * ranks[1] + 4 * ranks[1]

    found = cheapest(left_out, most, coupling, count, budget)
    pairs = itertools.product(range(1, most[0] + 1), range(1, most[1] + 1))
    allowed = [
        pair
        for pair in pairs
        if coupled(pair, most, coupling) == pair
        and left_out[0][pair[0]] + left_out[1][pair[1]] <= budget
    ]
    assert count(found) == min([count(p) for p in allowed] + [count(most)])


@given(sizes=st.lists(st.integers(1, 9), min_size=1, max_size=2), budget=st.integers(0, 400))
def test_no_larger_ranks_on_the_ray_fit_the_budget(sizes, budget):
    most = coupled(sizes, tuple(sizes), 3)

    def count(ranks):
        return 7 * sum(ranks) + math.prod(ranks)

    found = along_ray(most, 3, count, budget)
    steps = {m * t / 2520 for m in most for t in ()} | {
        i / m for m in most for i in range(1, m + 1)
    }
    fitting = [
        ranks
        for t in steps
        for ranks in [coupled([max(1, int(m * t + 1e-9)) for m in most], most, 3)]
        if count(ranks) <= budget
    ]
    assert found == (max(fitting, key=count) if fitting else None)


@pytest.mark.parametrize("share", [0.15, 0.25, 0.6])
@pytest.mark.parametrize(
    ("method", "window", "step"),
    [
        ("tucker", (3, 2), (1, 1)),
        ("cp", (3, 2), (1,)),
        ("tt", (3, 2), (1,)),
        ("tt", (2, 3, 4), (1, 3)),
    ],
)
def test_the_parameters_asked_for_are_not_exceeded_and_one_step_more_would(
    method, window, step, share
):
    conv = layer(20, 12, window, groups=2)
    found = kr.decompose(conv, method=method, rank=f"params:{share}")
    row = found.report.iloc[0]
    before = sum(p.numel() for p in conv.parameters())
    assert row["params_before"] == found.parameters_before == before
    after = sum(p.numel() for p in found.model.parameters())
    assert row["params_after"] == found.parameters_after == after <= share * before
    more = tuple(r + s for r, s in zip(row["rank"], step, strict=True))
    over = kr.decompose(conv, method=method, rank=more).report.iloc[0]
    assert over["params_after"] > share * before


def test_cp_takes_the_first_rank_of_its_grid_that_keeps_the_energy():
    conv = layer(24, 16, (3, 2))
    found = kr.decompose(conv, method="cp", rank="energy:0.6").report.iloc[0]
    (R,) = found["rank"]
    grid = [1, 2, 3, 4, 6, 8, 12, 16, 24, 32]
    sizes = [
        torch.linalg.svdvals(conv.weight.detach().flatten(2).movedim(i, 0).flatten(1))
        for i in range(3)
    ]
    least = max(int(((s**2).cumsum(0) < 0.6 * (s**2).sum()).sum()) + 1 for s in sizes)
    assert R in grid
    assert least < R
    below = max(r for r in grid if r < R)
    less = kr.decompose(conv, method="cp", rank=below).report.iloc[0]
    assert found["error"] ** 2 <= 0.4 < less["error"] ** 2 * 1.001


def test_a_rank_is_cut_to_what_each_layer_can_have_and_a_tuple_is_not():
    model = nn.Sequential(layer(60, 2, (3, 3)), layer(4, 60, (3, 3)))
    ranks = kr.decompose(model, rank=9).report["rank"]
    assert list(ranks) == [(2, 9), (9, 4)]
    with pytest.raises(
        DecomposeError, match=r"rank=\(9, 9\): layer '0' can have at most \(2, 18\)"
    ):
        kr.decompose(model, rank=(9, 9))
    thin = nn.Sequential(layer(60, 12, (2, 1)))
    with pytest.raises(DecomposeError, match="neither more than 2 times the other"):
        kr.decompose(thin, rank=(3, 7))
    assert kr.decompose(model, rank=(9, 3), layers=["1"]).report["rank"][1] == (9, 3)


@pytest.mark.parametrize(
    ("method", "rank", "takes"),
    [("tucker", (3,), "takes 2"), ("cp", (3, 4), "takes 1"), ("tt", (3, 4), "takes 1")],
)
def test_a_tuple_of_another_length_is_refused(method, rank, takes):
    with pytest.raises(DecomposeError, match=takes):
        kr.decompose(layer(6, 6, (3, 3)), method=method, rank=rank)


@pytest.mark.parametrize(
    "rank",
    [
        0,
        -1,
        True,
        2.0,
        None,
        (2, 0),
        (2, True),
        "energy:0",
        "energy:1.1",
        "energy:nan",
        "energy:x",
        "params:0",
        "params:inf",
        "params:",
        "share:0.5",
        "3",
    ],
)
def test_malformed_ranks_are_refused(rank):
    with pytest.raises(DecomposeError, match="give an integer of at least 1, a tuple of them"):
        kr.decompose(layer(6, 6, (3, 3)), rank=rank)


def test_malformed_arguments_are_refused():
    model = nn.Sequential()
    model.stem, model.head = layer(6, 6, (3, 3)), nn.Linear(3, 3)
    with pytest.raises(DecomposeError, match="method='svd': one of 'tucker', 'cp', 'tt'"):
        kr.decompose(model, method="svd", rank=1)
    with pytest.raises(DecomposeError, match="model is a dict; a torch module is needed"):
        kr.decompose({}, rank=1)
    with pytest.raises(DecomposeError, match="'stm' is no layer; the nearest convolutions are 'st"):
        kr.decompose(model, rank=1, layers=["stm"])
    with pytest.raises(DecomposeError, match="'head' is a Linear"):
        kr.decompose(model, rank=1, layers=["head"])
    with pytest.raises(DecomposeError, match=r"a list of names is needed, such as \['stem'\]"):
        kr.decompose(model, rank=1, layers="stem")
    with pytest.raises(DecomposeError, match="none is"):
        kr.decompose(nn.Sequential(), rank=1, layers=["stem"])
    model.stem.kept = (model.stem.weight * 2,)  # not a leaf
    with pytest.raises(DecomposeError, match="the network cannot be copied"):
        kr.decompose(model, rank=1)


def test_weights_without_values_are_refused_by_name():
    model = nn.Sequential(layer(6, 6, (3, 3)), layer(6, 6, (3, 3)))
    with torch.no_grad():
        model[1].weight[0, 0, 0, :2] = math.nan
    with pytest.raises(NonFiniteError, match="'1' holds NaN or infinity in 2 of 324"):
        kr.decompose(model, rank=1)
    assert kr.decompose(model, rank=1, layers=["0"]).report["reason"][1] == "not among layers="
    with pytest.raises(DecomposeError, match="'0' lies on device='meta'"):
        kr.decompose(model.to("meta"), rank=1)


class Own(nn.Conv2d):
    """Somebody's convolution."""


class Deformed(nn.Module):
    """A convolution of another library, as torch.nn knows it not."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(8, 8, 3, 3))
        self.in_channels, self.out_channels, self.kernel_size = 8, 8, (3, 3)


def hooked():
    conv = layer(8, 8, (3, 3))
    conv.register_forward_hook(lambda *_: None)
    return conv


def patched():
    conv = layer(8, 8, (3, 3))
    conv.forward = conv.forward
    return conv


def halves():
    one, other = layer(8, 8, (3, 3)), layer(8, 8, (3, 3))
    other.weight = one.weight
    return nn.Sequential(one, other)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: layer(8, 8, (1, 1)), "a 1×1 convolution"),
        (lambda: layer(8, 8, (3, 3), groups=8), "a depthwise convolution"),
        (lambda: nn.ConvTranspose2d(8, 8, 3), "a transposed convolution"),
        (lambda: nn.LazyConv2d(8, 3), "no shape before the first forward"),
        (lambda: Own(8, 8, 3), "a Own, no plain convolution of torch"),
        (Deformed, "a Deformed, no plain convolution of torch"),
        (lambda: parametrizations.weight_norm(layer(8, 8, (3, 3))), "parametrized"),
        (lambda: prune.identity(layer(8, 8, (3, 3)), "weight"), "computed from other parameters"),
        (hooked, "it has hooks"),
        (patched, "its forward was replaced"),
        (halves, "its weight or bias is a parameter of another layer too"),
        (lambda: nn.Conv2d(8, 8, 3, dtype=torch.complex64), "not real"),
        (lambda: layer(8, 8, (3,)), "one spatial mode: nothing to separate"),
        (lambda: layer(2, 2, (2, 2)), r"the block of rank (2,) would have 18 parameters"),
    ],
)
def test_what_is_not_replaced_is_listed_with_its_reason(make, reason):
    model = nn.Sequential(make())
    found = kr.decompose(model, method="tt", rank=2)
    assert (found.report["reason"].str.contains(reason, regex=False)).all()
    assert [*found.report["rank"]] == [()] * len(found.report)
    assert found.report["R"].isna().all()
    assert found.parameters_after == found.parameters_before
    assert [type(m) for m in found.model.modules()] == [type(m) for m in model.modules()]


def test_a_block_that_would_not_be_smaller_is_not_built_and_both_numbers_said():
    found = kr.decompose(layer(8, 8, (3, 3)), rank=8).report["reason"][0]
    assert found == "the block of rank (8, 8) would have 712 parameters, the layer has 584"
    none = kr.decompose(layer(8, 8, (3, 3)), rank="params:0.02").report["reason"][0]
    assert none == (
        "the block of rank (1, 1) would have 33 parameters, more than 0.02 times the layer's 584"
    )
    white = kr.decompose(layer(8, 8, (3, 3)), method="cp", rank="energy:0.9999").report["reason"][0]
    assert "up to 23 the block is smaller" in white


def test_one_channel_in_and_several_out_of_each_group_are_compressed():
    """A depthwise multiplier: each group's kernel is a matrix, for CP too, and its SVD the best."""
    conv = layer(48, 3, (4, 5), groups=3)
    rows = [kr.decompose(conv, method=m, rank=2).report.iloc[0] for m in ("tucker", "cp")]
    sizes = torch.linalg.svdvals(conv.weight.detach().reshape(3, 16, 20))
    best = float(sizes[:, 2:].norm() / sizes.norm())
    assert [row["rank"] for row in rows] == [(1, 2), (2,)]
    for row in rows:
        assert row["error"] == pytest.approx(best, rel=1e-9)
        assert (row["K"], row["R"], row["ratio"]) == (48, 6, 8)
    assert rows[1]["degeneracy"] == pytest.approx(1)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("rank", [2, "energy:0.9", "params:0.5"])
def test_a_zero_kernel_has_a_zero_block(method, rank):
    conv = layer(9, 8, (3, 2), weight=torch.zeros(9, 8, 3, 2))
    found = kr.decompose(conv, method=method, rank=rank)
    assert found.report[["error", "reason"]].to_numpy().tolist() == [[0, ""]]
    assert difference(conv, found.model, 1, 8, 5, 5) == 0


def test_a_zero_group_beside_another():
    weight = normal(12, 4, 3, 2)
    weight[:6] = 0
    conv = layer(12, 8, (3, 2), weight=weight, groups=2)
    for method in METHODS:
        row = kr.decompose(conv, method=method, rank=2).report.iloc[0]
        assert 0 < row["error"] < 1


class Twice(nn.Module):
    """One convolution under two names, one inside of a container."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(8, 8, 3, padding=1)
        self.again = nn.ModuleList([self.first, nn.BatchNorm2d(8)])

    def forward(self, x):
        return self.again[0](self.again[1](self.first(x)))


def test_a_module_of_two_names_is_replaced_under_both_by_the_same_block():
    found = kr.decompose(Twice(), rank=2)
    assert list(found.report["name"]) == ["first"]
    assert found.model.first is found.model.again[0]
    assert isinstance(found.model.first, nn.Sequential)
    assert kr.decompose(Twice(), rank=2, layers=["again.0"]).report["reason"][0] == ""
    saved = found.report["params_before"] - found.report["params_after"]
    assert sum(p.numel() for p in Twice().parameters()) == found.parameters_before
    assert found.parameters_before - found.parameters_after == saved.sum()


def test_the_network_given_its_modes_and_the_random_state_stay_as_they_were():
    model = nn.Sequential(nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3)).train()
    model[2].eval().bias.requires_grad_(False)
    model[0].weight.requires_grad_(False)
    before, state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    for method in METHODS:
        found = kr.decompose(model, method=method, rank=2).model
        assert [m.training for m in found] == [True, True, False]
        assert {p.dtype for p in found.parameters()} == {torch.float32}
        assert not any(part.weight.requires_grad for part in found[0])
        assert found[0][-1].bias.requires_grad
        assert all(part.weight.requires_grad for part in found[2])
        assert not found[2][-1].bias.requires_grad
        assert [part.bias is None for part in found[0]] == [True] * (len(found[0]) - 1) + [False]
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(model.state_dict()[name], value) for name, value in before.items())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_error_is_that_of_the_weights_as_they_are_stored(dtype):
    conv = layer(16, 12, (3, 3), weight=exact("tucker", 16, 12, (3, 3), 1)[0]).to(dtype)
    found = kr.decompose(conv, rank=(2, 3))
    kernel = composed_of(found.model)
    weight = conv.weight.detach().double()
    error = float((kernel - weight).norm() / weight.norm())
    assert found.report["error"][0] == pytest.approx(error, rel=1e-6)
    assert torch.finfo(dtype).eps / 50 < error < torch.finfo(dtype).eps


def composed_of(block):
    reduce, spatial, expand = (part.weight.detach().double() for part in block)
    return torch.einsum("ks,srab,rc->kcab", expand[..., 0, 0], spatial, reduce[..., 0, 0])


def test_results_do_not_depend_on_which_layers_are_decomposed():
    model = nn.Sequential(layer(8, 9, (3, 3)), layer(9, 8, (3, 2)))
    both = kr.decompose(model, method="cp", rank=5).model
    one = kr.decompose(model, method="cp", rank=5, layers=["1"]).model
    for name, value in one[1].state_dict().items():
        assert torch.equal(value, both[1].state_dict()[name])
    assert isinstance(one[0], nn.Conv2d)


def test_a_whole_network_keeps_its_path_names_and_runs():
    model = nn.Sequential(
        kr.blocks.standard(3, 16, (3, 3), activation=nn.ReLU, norm=True),
        kr.blocks.resnet_bottleneck(16, (3, 3), R=12),
        kr.blocks.depthwise_separable(16, 8, (3, 3)),
    )
    found = kr.decompose(model, rank="params:0.5")
    assert list(found.report["name"]) == [
        n for n, m in model.named_modules() if isinstance(m, nn.Conv2d)
    ]
    taken = found.report[found.report["reason"] == ""]["name"]
    assert list(taken) == ["0.0", "1.branch.1"]
    assert found.model.get_submodule("1.branch.1.spatial").kernel_size == (3, 3)
    assert found.model(torch.zeros(2, 3, 8, 8)).shape == (2, 8, 8, 8)
    assert found.parameters_after < found.parameters_before


# Stable CP


def test_products_with_terms_and_their_sum_are_what_their_indices_say():
    kernel, factors = normal(6, 5, 4), [normal(n, 3, seed=n) for n in (6, 5, 4)]
    U, V, W = factors
    one, other, third = (products(kernel, factors, mode) for mode in range(3))
    torch.testing.assert_close(one, torch.einsum("kcl,cr,lr->kr", kernel, V, W))
    torch.testing.assert_close(other, torch.einsum("kcl,kr,lr->cr", kernel, U, W))
    torch.testing.assert_close(third, torch.einsum("kcl,kr,cr->lr", kernel, U, V))
    torch.testing.assert_close(summed(factors), torch.einsum("kr,cr,lr->kcl", U, V, W))
    terms, whole = energies(factors)
    each = [float(summed([f[:, [r]] for f in factors]).square().sum()) for r in range(3)]
    assert terms == pytest.approx(sum(each))
    assert whole == pytest.approx(float(summed(factors).square().sum()))


def test_least_squares_takes_the_steps_of_tensorly():
    kernel, start = normal(6, 5, 4), [normal(n, 3, seed=n) for n in (6, 5, 4)]
    kernel /= kernel.norm()
    with tensorly.backend_context("pytorch", local_threadsafe=True):
        theirs = parafac(kernel, 3, n_iter_max=7, init=CPTensor((None, start)), tol=None)
    ours = least_squares(kernel, start, 7)
    for one, other in zip(ours, theirs.factors, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-7)


def border():
    """a⊗a⊗b + a⊗b⊗a + b⊗a⊗a, of rank three and border rank two, in unequal sizes and norm one."""
    pairs = [torch.linalg.qr(normal(n, 2, seed=n)).Q.T for n in (5, 4, 6)]
    kernel = sum(
        torch.einsum("i,j,k->ijk", *(pair[int(i == turn)] for i, pair in enumerate(pairs)))
        for turn in range(3)
    )
    return kernel / kernel.norm(), pairs


def nearly_rank_two(pairs, t):
    """(a + t b)⊗³ - (a - t b)⊗³ over 2t, whose error is t²/√3, and its norm."""
    plus = [(a + t * b)[:, None] for a, b in pairs]
    minus = [(a - t * b)[:, None] for a, b in pairs]
    factors = [torch.cat(both, 1) for both in zip(plus, minus, strict=True)]
    factors[0] = factors[0] * torch.tensor([1.0, -1.0]) / (2 * t * math.sqrt(3))
    return factors


@pytest.mark.parametrize("t", [0.3, 0.1, 0.01, 0.003])
def test_a_border_rank_two_tensor_is_met_by_terms_without_bound_and_corrected_to_a_bound(t):
    kernel, pairs = border()
    start = nearly_rank_two(pairs, t)
    error = (kernel - torch.einsum("kr,cr,lr->kcl", *start)).norm()
    assert float(error) == pytest.approx(t**2 / math.sqrt(3))
    assert degeneracy([start]) == pytest.approx(1 / (6 * t**2), rel=0.5)
    factors = stable(kernel, start, 0.1)
    found = (kernel - torch.einsum("kr,cr,lr->kcl", *factors)).norm()
    assert float(found) == pytest.approx(0.1, rel=1e-6)
    assert degeneracy([factors]) == pytest.approx(1.58, abs=0.02)  # whatever the start


def test_least_squares_of_a_border_rank_two_tensor_is_corrected_within_the_slack():
    kernel, _ = border()
    terms = canonical(kernel, 2, generator)
    factors = stabilized(kernel, terms)
    error = float((kernel - torch.einsum("kr,cr,lr->kcl", *factors)).norm())
    assert 0 < error <= (1 + SLACK) * terms.error * (1 + 1e-6)
    assert 1 < degeneracy([factors]) < degeneracy([terms.factors])


def test_terms_that_cancel_are_replaced_by_terms_that_do_not():
    kernel = torch.einsum("kr,cr,lr->kcl", normal(6, 3), normal(5, 3, seed=1), normal(4, 3, seed=2))
    noisy = kernel + 0.05 * kernel.norm() * torch.nn.functional.normalize(
        normal(6, 5, 4, seed=3).flatten(), dim=0
    ).reshape(6, 5, 4)
    noisy /= noisy.norm()
    terms = canonical(noisy, 3, generator)
    extra = normal(6, 1, seed=4), normal(5, 1, seed=5), normal(4, 1, seed=6)
    cancelling = [
        torch.cat([f, 30 * e, (-30 if i == 0 else 30) * e], 1)
        for i, (f, e) in enumerate(zip(terms.factors, extra, strict=True))
    ]
    assert degeneracy([cancelling]) > 1e8
    factors = stable(noisy, cancelling, 1.01 * terms.error)
    assert degeneracy([factors]) < 3


def test_each_step_is_the_least_norm_in_the_ball():
    """A general solver finds the same: minimize the norm of one factor, the error given."""
    kernel = normal(2, 4, 3)
    kernel /= kernel.norm()
    others = [torch.nn.functional.normalize(normal(n, 2, seed=n), dim=0) for n in (4, 3)]
    design = torch.einsum("cr,lr->clr", *others).reshape(12, 2)
    best = torch.linalg.lstsq(design, kernel.reshape(2, 12).T).solution
    least = float((design @ best - kernel.reshape(2, 12).T).norm())
    limit = 1.05 * least
    start = [best.T, *others]
    found = _step(kernel, start, 0, limit)[0]

    def spare(x):
        return limit**2 - ((x.reshape(2, 2) @ design.numpy().T - target) ** 2).sum()

    target = kernel.reshape(2, 12).numpy()
    solved = minimize(
        lambda x: (x**2).sum(),
        best.T.flatten().numpy(),
        jac=lambda x: 2 * x,
        constraints={"type": "ineq", "fun": spare},
        options={"ftol": 1e-14, "maxiter": 500},
    )
    np.testing.assert_allclose(found.flatten().numpy(), solved.x, atol=1e-5)
    assert spare(found.flatten().numpy()) == pytest.approx(0, abs=1e-12)


def test_orthogonal_terms_have_degeneracy_one_and_are_left_alone():
    factors = [torch.linalg.qr(normal(n, 3, seed=n)).Q for n in (7, 5, 4)]
    kernel = torch.einsum("kr,cr,lr->kcl", *factors) + 0.1 * normal(7, 5, 4)
    assert degeneracy([factors]) == pytest.approx(1)
    kept = stable(kernel / kernel.norm(), factors, 0.9)
    for one, other in zip(kept, factors, strict=True):
        torch.testing.assert_close(one, other)
    assert energies([2 * f for f in factors]) == pytest.approx((3 * 64, 3 * 64))


def test_a_rank_above_that_of_the_kernel_is_no_obstacle():
    """There the normal equations become singular."""
    weight, _ = exact("cp", 16, 12, (3, 3), 1)
    conv = layer(16, 12, (3, 3), weight=weight)
    row = kr.decompose(conv, method="cp", rank=6).report.iloc[0]
    assert row["error"] < 1e-5
    assert math.isfinite(row["degeneracy"])


def test_degenerate_layers_are_flagged(monkeypatch):
    """A layer whose kernel has border rank two, at a small error, needs terms that cancel."""
    conv = layer(5, 4, (2, 3), weight=border()[0].reshape(5, 4, 2, 3))
    row = kr.decompose(conv, method="cp", rank=2).report.iloc[0]
    assert row["degeneracy_als"] > row["degeneracy"] > 4
    assert not row["degenerate"]
    monkeypatch.setattr("krratio.rewriting.decomposing.decompose.DEGENERATE", 4)
    assert kr.decompose(conv, method="cp", rank=2).report["degenerate"][0]


def test_independent_changes_of_the_terms_are_amplified_by_the_root_of_the_degeneracy():
    _, pairs = border()
    factors = nearly_rank_two(pairs, 0.05)
    each = torch.stack([summed([f[:, [r]] for f in factors]) for r in range(2)])
    changes = 1e-3 * normal(4000, 2)
    moved = torch.einsum("nr,rkcl->nkcl", changes, each).flatten(1).square().sum(1).mean().sqrt()
    amplified = float(moved / summed(factors).norm()) / 1e-3
    assert amplified == pytest.approx(math.sqrt(degeneracy([factors])), rel=0.05)


def test_composed_parts_of_cp_are_the_sum_of_its_terms():
    conv = layer(10, 8, (3, 2), groups=2, stride=(2, 1), padding=(0, 1))
    found = kr.decompose(conv, method="cp", rank=3)
    reduce, spatial, expand = (
        part.weight.detach().reshape(2, -1, *part.weight.shape[1:]) for part in found.model
    )
    kernel = torch.einsum(
        "gkr,grab,grc->gkcab", expand[..., 0, 0], spatial[:, :, 0], reduce[..., 0, 0]
    )
    plain = copy.deepcopy(conv)
    with torch.no_grad():
        plain.weight.copy_(kernel.flatten(0, 1))
    assert difference(plain, found.model, 2, 8, 9, 7) < 1e-13
    error = float(
        (kernel.flatten(0, 1) - conv.weight.detach()).norm() / conv.weight.detach().norm()
    )
    assert found.report["error"][0] == pytest.approx(error, rel=1e-9)
    assert [part.groups for part in found.model] == [2, 6, 2]


@pytest.mark.parametrize("method", ["tucker", "cp", "tt"])
@pytest.mark.parametrize("size", [1e-170, 1e170])
def test_weights_whose_squares_leave_the_floats_are_decomposed_like_others(method, size):
    torch.manual_seed(0)
    conv = nn.Conv2d(6, 8, 3, bias=False).double()
    other = copy.deepcopy(conv)
    with torch.no_grad():
        other.weight.mul_(size)
    usual, scaled = (kr.decompose(nn.Sequential(c), method=method, rank=2) for c in (conv, other))
    assert scaled.report["error"][0] == pytest.approx(usual.report["error"][0], rel=1e-6)
    assert 0 < scaled.report["error"][0] < 1
    x = torch.randn(2, 6, 7, 7, dtype=torch.float64)
    torch.testing.assert_close(scaled.model(x) / size, usual.model(x), rtol=1e-5, atol=1e-6)


def test_what_only_looks_like_a_convolution_is_left_alone():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight, self.kernel_size = nn.Parameter(torch.ones(2, 2)), 3
            self.in_channels = self.out_channels = None

        def forward(self, x):
            return x

    assert kr.decompose(nn.Sequential(Odd()), rank=1).report.empty
