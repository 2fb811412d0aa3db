"""Numbers that are known, computed here: some ten seconds."""

from collections.abc import Callable, Iterator, Sequence

from krratio.pipeline.doctoring.finding import Finding

__all__ = ["TESTS", "selftest"]


def dimensions() -> str:
    """Exact dimensions of a bottleneck network: 44 for R = 2 and 87 for R = 3, whatever K."""
    from torch import nn

    from krratio.theory.dimension import intrinsic_dimension

    found = []
    for R, K in ((2, 2), (2, 8), (3, 3), (3, 12)):
        layers = nn.Conv2d(4, R, 1, bias=False), nn.Conv2d(R, R, 3, bias=False)
        head = nn.AvgPool2d(4), nn.Flatten(), nn.Linear(4 * K, 1, bias=False)
        network = nn.Sequential(*layers, nn.Conv2d(R, K, 1, bias=False), *head)
        found.append(intrinsic_dimension(network, (4, 10, 10)).value)
    return _expect(found, [44, 44, 87, 87])


def tensor() -> str:
    """A deep network is an inner product with its tensor, to 1e-12."""
    import torch
    from torch import nn

    from krratio.theory.tensorize import tensorize

    generator = torch.Generator().manual_seed(0)
    convs = nn.Conv2d(3, 2, 1), nn.Conv2d(2, 4, 3), nn.Conv2d(4, 8, 1)
    network = nn.Sequential(*convs, nn.AvgPool2d(5), nn.Flatten(), nn.Linear(72, 10)).double()
    for parameter in network.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator, dtype=torch.float64) / 5
    x = torch.randn(3, 3, 17, 17, generator=generator, dtype=torch.float64)
    net = tensorize(network, (3, 17, 17))
    error = (net.contract(net.patches(x)) - network(x)).abs().max() / network(x).abs().max()
    return _expect([f"error below 1e-12: {bool(error < 1e-12)}"], ["error below 1e-12: True"])


def rank() -> str:
    """The rank of a product of 60×17 and 17×50 matrices modulo a prime."""
    import numpy as np

    from krratio.theory.modular.field import Field, draw_prime

    generator = np.random.default_rng(0)
    field = Field(draw_prime(generator))
    product = field.matmul(field.random(generator, 60, 17), field.random(generator, 17, 50))
    return _expect([field.rank(product)], [17])


def fit() -> str:
    """Least squares finds a matrix of rank 2 from noiseless samples."""
    import torch

    from krratio.experiments.estimators import fit as least_squares
    from krratio.experiments.statistics import Statistics

    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    truth, patches = draw(9, 2) @ draw(2, 4), draw(200, 9, 4)
    outputs = torch.einsum("nlp,lp->n", patches, truth)[:, None]
    found = least_squares(Statistics.from_batches([(patches, outputs)]), "matrix", 2, starts=8)
    error = (found.weight[:, :, 0] - truth).norm() / truth.norm()
    return _expect([f"error below 1e-6: {bool(error < 1e-6)}"], ["error below 1e-6: True"])


TESTS: dict[str, Callable[[], str]] = {
    "exact dimension": dimensions,
    "tensor of a network": tensor,
    "rank modulo a prime": rank,
    "least squares": fit,
}


def selftest() -> Iterator[Finding]:
    """Run every test; one that raises has failed."""
    for name, test in TESTS.items():
        try:
            yield Finding(name, "ok", test())
        except Exception as error:
            yield Finding(name, "failed", f"{type(error).__name__}: {error}")


def _expect(found: Sequence[object], wanted: Sequence[object]) -> str:
    if found != wanted:
        raise AssertionError(f"found {found}, known is {wanted}")
    return ", ".join(map(str, found))
