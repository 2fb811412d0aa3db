"""The rank modulo a prime, the kernel fields that are known, and the bounds that they make."""

import math

import hypothesis
import numpy as np
import pytest
import torch
from flint import fmpz
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import krratio as kr
from krratio.errors import MemoryLimitError
from krratio.networks.layers import KINDS
from krratio.networks.trace import trace
from krratio.theory.modular.certificate import Certificate, degree_and_bits
from krratio.theory.modular.channels import channels
from krratio.theory.modular.edges import edges
from krratio.theory.modular.field import Field, draw_prime
from krratio.theory.modular.gauge import gauge_fields, shift_fields
from krratio.theory.modular.known import field_matrix
from krratio.theory.modular.overlap import overlap_fields
from krratio.theory.modular.reach import Spanner, spans
from krratio.theory.modular.rules import BACKWARD, FORWARD
from krratio.theory.modular.sketch import _batch, random_point, sketch
from krratio.theory.modular.slots import slots
from krratio.theory.spectrum import NoSpectralGapError
from random_networks import Residual, networks

pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
few = settings(max_examples=60)


@pytest.fixture(params=range(3))
def field(request):
    return Field(draw_prime(np.random.default_rng(request.param)))


def generator():
    return np.random.default_rng(7)


def test_primes_are_primes_of_the_stated_size():
    primes = {draw_prime(np.random.default_rng(s)) for s in range(20)}
    assert len(primes) == 20
    assert all(2**60 < p < 2**61 and fmpz(p).is_prime() for p in primes)


def test_arithmetic_agrees_with_python_integers(field):
    p, a, b = field.prime, field.random(generator(), 500), field.random(generator(), 500)
    a[:4] = torch.tensor([0, 1, p - 1, p - 1])
    b[:4] = torch.tensor([p - 1, p - 1, p - 1, 0])
    pairs = list(zip(a.tolist(), b.tolist(), strict=True))
    assert field.multiply(a, b).tolist() == [x * y % p for x, y in pairs]
    assert field.add(a, b).tolist() == [(x + y) % p for x, y in pairs]
    assert field.negative(a).tolist() == [-x % p for x in a.tolist()]
    assert field.sum(a, 0).item() == sum(a.tolist()) % p
    assert field.multiply(field.inverses(a[1:]), a[1:]).unique().tolist() == [1]


def test_matrix_products_agree_with_python_integers_beyond_one_block(field):
    a, b = field.random(generator(), 3, 1100), field.random(generator(), 1100, 2)
    a[0], b[:, 0] = field.prime - 1, field.prime - 1
    wanted = [
        [
            sum(x * y for x, y in zip(row, column, strict=True)) % field.prime
            for column in b.T.tolist()
        ]
        for row in a.tolist()
    ]
    assert field.matmul(a, b).tolist() == wanted


@pytest.mark.parametrize(
    ("left", "right"), [((2, 3, 4), (4, 5)), ((3, 4), (2, 4, 5)), ((2, 1, 3, 0), (4, 0, 5))]
)
def test_matrix_products_broadcast_as_those_of_numpy(field, left, right):
    random = generator()
    a, b = field.random(random, *left), field.random(random, *right)
    product = field.matmul(a, b)
    expected = np.matmul(a.numpy().astype(object), b.numpy().astype(object)) % field.prime
    assert tuple(product.shape) == expected.shape
    assert product.tolist() == expected.tolist()


def test_floating_point_numbers_have_exact_images(field):
    values = torch.tensor([0.75, -3.0, 2.0**-40], dtype=torch.float64)
    scaled = field.multiply(field.elements(values), 2**40).tolist()
    assert scaled == [int(v * 2**40) % field.prime for v in values.tolist()]


@pytest.mark.parametrize("table", [FORWARD, BACKWARD], ids=["FORWARD", "BACKWARD"])
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_layer_kind_has_a_modular_row(table, kind):
    assert kind in table


def size(net):
    return sum(p.numel() for p in net.parameters())


@few
@given(drawn=networks(), bias=st.booleans())
def test_exact_and_float_agree_on_random_networks(drawn, bias):
    net, shape = drawn
    hypothesis.assume(size(net) <= 400)
    exact = kr.intrinsic_dimension(net, shape, bias=bias)
    try:
        spectral = kr.intrinsic_dimension(net, shape, method="float", bias=bias)
    except NoSpectralGapError:
        hypothesis.reject()
    assert int(exact) == int(spectral)
    assert exact.parameters == spectral.parameters
    certificate = exact.certificate
    assert certificate.lower <= certificate.upper
    assert sum(n for _, n in certificate.reasons) == exact.parameters - certificate.upper


def fields_and_jacobian(net, shape, *, bias):
    random = generator()
    field = Field(draw_prime(random))
    point = random_point(
        trace(net, shape), {id(p) for p in net.parameters()}, field, random, bias=bias
    )
    axes = channels(point.graph)
    found = spans(point.graph, axes, field, bias=bias)
    chosen = slots(point, axes, found)
    changes = []
    for edge in edges(point.graph, axes):
        changes += gauge_fields(point, axes, chosen, edge, bias=bias)
        changes += shift_fields(point, axes, chosen, edge) if bias else ()
    changes += overlap_fields(point, chosen)
    fields = field_matrix(chosen, changes)
    everything = {o: torch.arange(n) for o, n in point.sizes.items()}
    whole = sketch(point, everything, sum(point.sizes.values()), random, bias=bias)
    kept = sketch(point, {o: s.kept for o, s in chosen.items()}, 12, random, bias=bias)
    return field, fields, whole, kept


@few
@given(drawn=networks(), bias=st.booleans())
def test_every_kernel_field_is_in_the_kernel(drawn, bias):
    """Modulo the prime, exactly zero: a field that is wrong anywhere shows on random networks."""
    net, shape = drawn
    hypothesis.assume(size(net) <= 400)
    field, fields, _, kept = fields_and_jacobian(net, shape, bias=bias)
    assert not field.matmul(kept, fields.T).any()


@few
@given(drawn=networks(), bias=st.booleans())
def test_dropped_columns_do_not_lower_the_rank(drawn, bias):
    net, shape = drawn
    hypothesis.assume(size(net) <= 400)
    field, _, whole, _ = fields_and_jacobian(net, shape, bias=bias)
    assert field.rank(whole) == int(kr.intrinsic_dimension(net, shape, bias=bias, seed=3))


class Twice(nn.Module):
    """Two readers of one value: one behind a BatchNorm, the other not."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(3)
        self.one, self.other = nn.Conv1d(3, 2, 1, bias=False), nn.Conv1d(3, 2, 1, bias=False)

    def forward(self, x):
        return self.one(self.norm(x)) + self.other(x)


def head(features, outputs=4, **options):
    return nn.Flatten(), nn.Linear(features, outputs, **options)


ODD = {
    "norm": [nn.Conv1d(2, 3, 2, bias=False), nn.BatchNorm1d(3), *head(15)],
    "norm and bias": [nn.Conv1d(2, 3, 2), nn.BatchNorm1d(3), *head(15)],
    "two norms": [nn.Conv1d(2, 3, 2), nn.BatchNorm1d(3), nn.BatchNorm1d(3), *head(15)],
    "norm without weights": [nn.Conv1d(2, 3, 2), nn.BatchNorm1d(3, affine=False), *head(15)],
    "two readers": [nn.Conv1d(2, 3, 2, bias=False), Twice(), *head(10)],
    "sum of narrow branches": [
        Residual(
            nn.Sequential(nn.Conv1d(6, 2, 1, bias=False), nn.Conv1d(2, 5, 1, bias=False)),
            nn.Sequential(nn.Conv1d(6, 2, 1, bias=False), nn.Conv1d(2, 5, 1, bias=False)),
        ),
        nn.Conv1d(5, 5, 1, bias=False),
    ],
    "multiple": [nn.Conv1d(2, 3, 2), Residual(nn.Conv1d(3, 3, 1), nn.Identity(), 2.0), *head(15)],
    "groups of three": [
        nn.Conv1d(2, 2, 2, bias=False),
        nn.Conv1d(2, 6, 1, groups=2, bias=False),
        nn.Conv1d(6, 6, 2, groups=2, bias=False),
        nn.Conv1d(6, 3, 1, bias=False),
    ],
    "uneven pooling": [nn.Conv1d(2, 3, 2), nn.AvgPool1d(2, padding=1), *head(9)],
    "padding": [nn.Conv1d(2, 2, 1), nn.Conv1d(2, 7, 1), nn.Conv1d(7, 3, 3, padding=1)],
    "shuffle": [nn.Conv1d(2, 4, 2), nn.ChannelShuffle(2), nn.Conv1d(4, 4, 2, groups=2), *head(16)],
}


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("name", ODD)
def test_odd_networks_agree_with_float_and_their_fields_are_in_the_kernel(name, bias):
    net, shape = nn.Sequential(*ODD[name]).double().eval(), (6 if "sum" in name else 2, 6)
    exact = kr.intrinsic_dimension(net, shape, bias=bias)
    assert int(exact) == int(kr.intrinsic_dimension(net, shape, method="float", bias=bias))
    assert exact.certificate.lower <= exact.certificate.upper
    field, fields, whole, kept = fields_and_jacobian(net, shape, bias=bias)
    assert not field.matmul(kept, fields.T).any()
    assert field.rank(whole) == int(exact)


KNOWN = {
    # (dimension, slack, gauge, offsets, ambient) without and with constants. Gauge by hand: 9 for
    # GL(3) on the channels, 3 more for each set of scales, and of offsets that shift into another.
    "norm": [(48, 0, 12, 0, 15), (52, 0, 15, 0, 15)],
    "norm and bias": [(48, 0, 12, 0, 15), (52, 0, 18, 0, 15)],
    "two norms": [(48, 0, 15, 0, 15), (52, 0, 9, 15, 15)],
    "norm without weights": [(48, 0, 9, 0, 15), (52, 0, 12, 0, 15)],
    "multiple": [(48, 0, 0, 0, 33), (52, 0, 0, 6, 33)],
    "uneven pooling": [(39, 0, 9, 0, 0), None],
    "padding": [(18, 45, 18, 0, 0), None],
    "shuffle": [(48, 0, 16, 0, 32), (52, 0, 24, 0, 32)],
}


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("name", KNOWN)
def test_which_dimensions_of_odd_networks_are_theorems(name, bias):
    """None where a bound is known, but not that it is met."""
    net = nn.Sequential(*ODD[name]).double().eval()
    certificate = kr.intrinsic_dimension(net, (2, 6), bias=bias).certificate
    reasons = dict(certificate.reasons)
    found = [reasons[reason] for reason in ("slack", "gauge", "offsets", "ambient")]
    assert certificate.theorem == (KNOWN[name][bias] is not None)
    if certificate.theorem:
        assert (certificate.lower, *found) == KNOWN[name][bias]


def test_the_probability_of_a_loss_by_hand():
    """Schwartz-Zippel at the point; and at most h / 60 of the primes between 2^60 and 2^61."""
    primes = 0.99 * 2**60 / math.log(2**61)
    height = math.log2(math.factorial(7)) + 7 * 11
    expected = 7 * 5 / 2**60 + height / 60 / primes
    assert Certificate.failure(7, 5, 11, 2**60) == pytest.approx(expected, rel=1e-9, abs=0)


SIZES = [
    # layers, (1, 6) -> output, degree, and what each layer multiplies the largest value by
    ([nn.Conv1d(1, 2, 3)], 8, 2, 3 + 1),
    ([nn.Conv1d(1, 2, 3), *head(8, 5)], 5, 3, (3 + 1) * (8 + 1)),
    ([nn.BatchNorm1d(1)], 6, 3, 3),
    ([nn.AvgPool1d(2)], 3, 1, 2 * 2),  # the divisor, and two places
    ([nn.AvgPool1d(3, stride=3)], 2, 1, 3 * 3),
    ([Residual(nn.Identity(), nn.Identity(), -0.5)], 6, 1, 4 * 8),  # a multiple of 1/2, a sum of 2
    ([Residual(nn.Conv1d(1, 1, 3, padding=1), nn.Identity(), 3.0)], 6, 2, 4 * 8),
]


@pytest.mark.parametrize(("layers", "outputs", "degree", "factor"), SIZES)
def test_degrees_and_sizes_by_hand(layers, outputs, degree, factor):
    """Bits of six inputs of one and a constant, times the layers, summed over the outputs."""
    found = degree_and_bits(trace(nn.Sequential(*layers).eval(), (1, 6)))
    assert found[0] == degree
    assert found[1] == pytest.approx(math.log2((6 + 1) * factor * (outputs + 1)), rel=1e-12)


def test_a_span_of_blocks_is_taken_apart_again(field):
    spanner, random = Spanner(field), generator()
    one, other = (spanner.of(field.random(random, 2, width), 2) for width in (3, 5))
    both = spanner.blocks([one, other])
    assert both.pivots == [0, 1, 3, 4]
    assert both.rows.shape == (4, 8)
    for part, (start, stop) in ((one, (0, 3)), (other, (3, 8))):
        found = spanner.part(both, start, stop)
        assert (found.rows.tolist(), found.pivots) == (part.rows.tolist(), part.pivots)
    assert spanner.generic
    assert spanner.part(spanner.full(8), 2, 5).pivots == [0, 1, 2]
    twice = torch.cat([one.rows, one.rows])
    assert spanner.of(twice, 3).pivots == one.pivots
    assert not spanner.generic  # three would have been possible


@pytest.mark.parametrize(
    ("conv", "values", "work"),
    [
        (nn.Conv1d(2, 3, 2), 12 + 15 + 15 + 4, 15 + 12 + 2 * 2 * 5),
        (nn.Conv1d(2, 4, 2, groups=2), 12 + 20 + 20 + 4, 20 + 12 + 2 * 2 * 5),
        (nn.Conv1d(2, 2, 1), 12 + 12 + 12 + 4, 12 + 12 + 2 * 6),
    ],
)
def test_a_batch_of_samples_takes_the_bytes_that_were_meant_for_it(conv, values, work):
    """All values, ten times the patches of the largest layer, and a row: eight bytes each."""
    net = nn.Sequential(conv, *head(conv.out_channels * (7 - conv.kernel_size[0])))
    kept = {0: torch.arange(30), 1: torch.arange(12)}
    assert _batch(trace(net, (2, 6)), kept) == 2**28 // (8 * (values + 10 * work + 42 + 1))


def test_the_limit_on_the_matrix_is_met_exactly():
    net = nn.Linear(10, 5, bias=False)
    assert int(kr.intrinsic_dimension(net, (10,), max_bytes=60 * 50**2)) == 50
    with pytest.raises(MemoryLimitError, match=r"50 columns takes up to 150,000 bytes"):
        kr.intrinsic_dimension(net, (10,), max_bytes=60 * 50**2 - 1)


def bottleneck(ratio, rank=2):
    return nn.Sequential(
        nn.Conv2d(4, rank, 1, bias=False),
        nn.Conv2d(rank, rank, 3, bias=False),
        nn.Conv2d(rank, ratio * rank, 1, bias=False),
        nn.AvgPool2d(4),
        nn.Flatten(),
        nn.Linear(4 * ratio * rank, 1, bias=False),
    )


@pytest.mark.parametrize("ratio", [1, 2, 3, 8])
def test_the_dimension_of_a_bottleneck_is_a_theorem_for_every_expansion(ratio):
    result = kr.intrinsic_dimension(bottleneck(ratio), (4, 10, 10))
    assert int(result) == 44
    assert result.certificate.theorem


def test_the_size_of_the_matrix_does_not_grow_with_the_expansion():
    narrow = kr.intrinsic_dimension(bottleneck(4), (4, 10, 10)).certificate
    wide = kr.intrinsic_dimension(bottleneck(64), (4, 10, 10)).certificate
    assert (wide.rows, wide.columns) == (narrow.rows, narrow.columns)


@pytest.mark.parametrize(("channels_before", "positions"), [(1, (2, 1)), (3, (1, 2)), (2, (2, 2))])
def test_two_overlapping_channels_follow_the_overlap_law_as_a_theorem(channels_before, positions):
    """T = 1, K = 2: deficit C (K choose 2) prod (l_j - (p_j - 1) s_j q_j)_+ ."""
    kernel, stride, pool = (5, 4), (1, 2), (2, 1)
    steps = [s * q for s, q in zip(stride, pool, strict=True)]
    sizes = [kernel[j] + stride[j] * (positions[j] * pool[j] - 1) for j in range(2)]
    count = math.prod(positions)
    net = nn.Sequential(
        nn.Conv2d(channels_before, 2, kernel, stride=stride, bias=False),
        nn.AvgPool2d(pool),
        nn.Flatten(),
        nn.Linear(2 * count, 1, bias=False),
    )
    room = [max(0, kernel[j] - (positions[j] - 1) * steps[j]) for j in range(2)]
    volume = channels_before * math.prod(kernel)
    result = kr.intrinsic_dimension(net, (channels_before, *sizes))
    assert int(result) == 2 * (volume + count - 2) - channels_before * math.prod(room)
    assert result.certificate.theorem


def test_an_offset_that_meets_padding_stops_at_one_more_channel():
    def after_expansion(k):
        return nn.Sequential(
            nn.Conv2d(3, 2, (3, 2), bias=False),
            nn.Conv2d(2, k, 1),
            nn.Conv2d(k, 4, (3, 2), padding=(1, 0)),
        )

    dims = [
        int(kr.intrinsic_dimension(after_expansion(k), (3, 7, 6), bias=True)) for k in (2, 3, 5)
    ]
    assert dims == [86, 92, 92]


def test_a_block_with_a_skip_has_an_upper_bound_that_is_not_claimed_to_be_met():
    net = Residual(nn.Conv1d(3, 3, 3, padding=1, bias=False), nn.Identity())
    net = nn.Sequential(nn.Conv1d(2, 3, 1, bias=False), net, nn.Flatten(), nn.Linear(18, 2))
    result = kr.intrinsic_dimension(net, (2, 6))
    spectral = kr.intrinsic_dimension(net, (2, 6), method="float")
    assert int(result) == int(spectral)


def test_another_prime_and_point_give_the_same_number():
    results = [kr.intrinsic_dimension(bottleneck(2, 3), (4, 10, 10), seed=s) for s in range(4)]
    assert {int(r) for r in results} == {87}
    assert len({r.certificate.prime for r in results}) == 4


def test_the_certificate_bounds_the_probability_of_a_loss():
    certificate = kr.intrinsic_dimension(bottleneck(2), (4, 10, 10)).certificate
    assert certificate.degree == 5  # four layers and the functional's two factors, less one
    by_point = 44 * certificate.degree / certificate.prime
    assert by_point < certificate.failure_probability < 1e-12


def test_fixed_weights_keep_their_values_in_the_field():
    """A fixed averaging filter of rank one lets one dimension of three inputs pass."""
    fixed = nn.Linear(3, 2, bias=False)
    fixed.weight = nn.Parameter(torch.tensor([[0.5, 0.25, 1.0], [1.0, 0.5, 2.0]]), False)
    result = kr.intrinsic_dimension(nn.Sequential(fixed, nn.Linear(2, 4, bias=False)), (3,))
    assert int(result) == 4
