"""The block designs of the paper and its field, as plain torch modules.

Every constructor takes ``activation``, a class such as ``nn.ReLU`` or None for the linear theory,
and ``norm``, whether BatchNorm follows each convolution. An activation stands where the design has
one, so that a linear end stays linear. Convolutions keep the grid: stride 1 and padding of half a
kernel. The number of spatial modes is that of ``kernel``.
"""

import operator
from collections.abc import Callable, Sequence
from typing import SupportsIndex, cast

import torch
from torch import Tensor, nn

__all__ = [
    "Fire",
    "Residual",
    "Shuffle",
    "SplitShuffle",
    "convnext",
    "cp_bottleneck",
    "depthwise_separable",
    "fire",
    "inverted_residual",
    "resnet_bottleneck",
    "resnext",
    "separable_chain",
    "shufflenet_v1",
    "shufflenet_v2",
    "standard",
    "tucker_bottleneck",
]

Activation = Callable[[], nn.Module] | None

_CONV: dict[int, Callable[..., nn.Module]] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
_NORM: dict[int, Callable[[int], nn.Module]] = {
    1: nn.BatchNorm1d,
    2: nn.BatchNorm2d,
    3: nn.BatchNorm3d,
}


class Residual(nn.Module):
    """x + branch(x), then an activation if there is one."""

    def __init__(self, branch: nn.Module, activation: Activation = None) -> None:
        super().__init__()
        self.branch = branch
        self.activation = activation() if activation is not None else None

    def forward(self, x: Tensor) -> Tensor:
        """Add what the branch makes of x."""
        y: Tensor = x + self.branch(x)
        return y if self.activation is None else self.activation(y)


class Shuffle(nn.Module):
    """Channel shuffle: channel (g, i) of ``groups`` becomes channel (i, g)."""

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.groups = groups

    def forward(self, x: Tensor) -> Tensor:
        """Permute the channels."""
        n, c, *space = x.shape
        grouped = x.reshape(n, self.groups, c // self.groups, *space)
        return grouped.transpose(1, 2).reshape(x.shape)


class SplitShuffle(nn.Module):
    """ShuffleNet V2: half of the channels pass, a branch takes the rest, and both are shuffled."""

    def __init__(self, branch: nn.Module) -> None:
        super().__init__()
        self.branch, self.shuffle = branch, Shuffle(2)

    def forward(self, x: Tensor) -> Tensor:
        """Join what passed with what the branch made."""
        passed, rest = x.chunk(2, 1)
        joined: Tensor = self.shuffle(torch.cat([passed, self.branch(rest)], 1))
        return joined


class Fire(nn.Module):
    """SqueezeNet: a squeeze, then 1x1 and spatial convolutions side by side."""

    def __init__(self, squeeze: nn.Module, pointwise: nn.Module, spatial: nn.Module) -> None:
        super().__init__()
        self.squeeze, self.pointwise, self.spatial = squeeze, pointwise, spatial

    def forward(self, x: Tensor) -> Tensor:
        """Concatenate both expansions."""
        y = self.squeeze(x)
        return torch.cat([self.pointwise(y), self.spatial(y)], 1)


def _unit(
    C: int,
    K: int,
    kernel: Sequence[int],
    activation: Activation,
    *,
    norm: bool,
    groups: int = 1,
) -> list[nn.Module]:
    """Convolution, then BatchNorm and activation where they are asked for."""
    if C % groups or K % groups:
        raise ValueError(f"groups={groups} divides not both {C} and {K} channels.")
    N, padding = len(kernel), tuple(k // 2 for k in kernel)
    layers = [_CONV[N](C, K, tuple(kernel), padding=padding, groups=groups, bias=False)]
    if norm:
        layers.append(_NORM[N](K))
    if activation is not None:
        layers.append(activation())
    return layers


def _check(kernel: Sequence[int], **sizes: int) -> None:
    """Refuse sizes that are no positive integers, by the name of their argument."""
    for name, size in sizes.items():
        _integer(f"{name}={size!r}", size)
    if not isinstance(kernel, Sequence) or len(kernel) not in _CONV:
        raise ValueError(f"kernel={kernel!r}: a tuple of one to three odd sizes is needed.")
    for size in kernel:
        _integer(f"kernel={tuple(kernel)}", size)
    if any(size % 2 == 0 for size in kernel):
        raise ValueError(f"kernel={tuple(kernel)}: one to three odd sizes are needed.")


def _integer(what: str, size: object) -> None:
    whole = isinstance(size, SupportsIndex) and not isinstance(size, bool)
    if not whole or operator.index(cast(SupportsIndex, size)) < 1:
        raise ValueError(f"{what}: an integer of at least 1 is needed.")


def _point(kernel: Sequence[int]) -> tuple[int, ...]:
    return (1,) * len(kernel)


def standard(
    C: int, K: int, kernel: Sequence[int], *, activation: Activation = None, norm: bool = False
) -> nn.Module:
    """One convolution C -> K: no compression, so no bottleneck."""
    _check(kernel, C=C, K=K)
    return nn.Sequential(*_unit(C, K, kernel, activation, norm=norm))


def tucker_bottleneck(
    C: int,
    K: int,
    kernel: Sequence[int],
    *,
    ranks: tuple[int, int],
    activation: Activation = None,
    norm: bool = False,
) -> nn.Module:
    """1x1 (C -> R_1), spatial (R_1 -> R), 1x1 (R -> K): Tucker, spatial modes uncompressed."""
    if not isinstance(ranks, Sequence) or len(ranks) != 2:
        raise ValueError(f"ranks={ranks!r}: two are needed.")
    first, R = ranks
    _check(kernel, C=C, K=K, **{"ranks[0]": first, "ranks[1]": R})
    point = _point(kernel)
    return nn.Sequential(
        *_unit(C, first, point, activation, norm=norm),
        *_unit(first, R, kernel, activation, norm=norm),
        *_unit(R, K, point, activation, norm=norm),
    )


def cp_bottleneck(
    C: int,
    K: int,
    kernel: Sequence[int],
    *,
    R: int,
    activation: Activation = None,
    norm: bool = False,
) -> nn.Module:
    """1x1 (C -> R), depthwise, 1x1 (R -> K): CP of rank R with merged spatial modes."""
    _check(kernel, C=C, K=K, R=R)
    point = _point(kernel)
    return nn.Sequential(
        *_unit(C, R, point, activation, norm=norm),
        *_unit(R, R, kernel, activation, norm=norm, groups=R),
        *_unit(R, K, point, activation, norm=norm),
    )


def separable_chain(
    C: int,
    K: int,
    kernel: Sequence[int],
    *,
    ranks: Sequence[int],
    activation: Activation = None,
    norm: bool = False,
) -> nn.Module:
    """One convolution along each spatial mode, C -> r_1 -> ... -> K: a tensor train.

    ``ranks`` are the bonds between them, one fewer than spatial modes.
    """
    _check(kernel, C=C, K=K, **{f"ranks[{j}]": rank for j, rank in enumerate(ranks)})
    if len(ranks) != len(kernel) - 1:
        raise ValueError(
            f"ranks={tuple(ranks)}: {len(kernel) - 1} are needed for {len(kernel)} modes."
        )
    channels, layers = (C, *ranks, K), []
    for j, size in enumerate(kernel):
        along = tuple(size if i == j else 1 for i in range(len(kernel)))
        layers += _unit(channels[j], channels[j + 1], along, activation, norm=norm)
    return nn.Sequential(*layers)


def depthwise_separable(
    C: int, K: int, kernel: Sequence[int], *, activation: Activation = None, norm: bool = False
) -> nn.Module:
    """Depthwise, then 1x1 (C -> K): MobileNet V1."""
    _check(kernel, C=C, K=K)
    return nn.Sequential(
        *_unit(C, C, kernel, activation, norm=norm, groups=C),
        *_unit(C, K, _point(kernel), activation, norm=norm),
    )


def inverted_residual(
    C: int,
    K: int,
    kernel: Sequence[int],
    *,
    expansion: int = 6,
    activation: Activation = None,
    norm: bool = False,
) -> nn.Module:
    """1x1 (C -> tC), depthwise, linear 1x1 (tC -> K), with a skip if C = K: MobileNet V2."""
    _check(kernel, C=C, K=K, expansion=expansion)
    point, R = _point(kernel), expansion * C
    branch = nn.Sequential(
        *_unit(C, R, point, activation, norm=norm),
        *_unit(R, R, kernel, activation, norm=norm, groups=R),
        *_unit(R, K, point, None, norm=norm),
    )
    return Residual(branch) if C == K else branch


def resnet_bottleneck(
    C: int,
    kernel: Sequence[int],
    *,
    R: int,
    groups: int = 1,
    activation: Activation = None,
    norm: bool = False,
) -> nn.Module:
    """Skip around 1x1 (C -> R), spatial (R -> R), 1x1 (R -> C), then an activation: ResNet."""
    _check(kernel, C=C, R=R, groups=groups)
    point = _point(kernel)
    branch = nn.Sequential(
        *_unit(C, R, point, activation, norm=norm),
        *_unit(R, R, kernel, activation, norm=norm, groups=groups),
        *_unit(R, C, point, None, norm=norm),
    )
    return Residual(branch, activation)


def resnext(
    C: int,
    kernel: Sequence[int],
    *,
    R: int,
    groups: int,
    activation: Activation = None,
    norm: bool = False,
) -> nn.Module:
    """A ResNet bottleneck whose spatial convolution has groups."""
    return resnet_bottleneck(C, kernel, R=R, groups=groups, activation=activation, norm=norm)


def shufflenet_v1(
    C: int,
    kernel: Sequence[int],
    *,
    R: int,
    groups: int,
    activation: Activation = None,
    norm: bool = False,
) -> nn.Module:
    """Skip around grouped 1x1 (C -> R), shuffle, depthwise, grouped 1x1 (R -> C): ShuffleNet V1."""
    _check(kernel, C=C, R=R, groups=groups)
    point = _point(kernel)
    branch = nn.Sequential(
        *_unit(C, R, point, activation, norm=norm, groups=groups),
        Shuffle(groups),
        *_unit(R, R, kernel, None, norm=norm, groups=R),
        *_unit(R, C, point, None, norm=norm, groups=groups),
    )
    return Residual(branch, activation)


def shufflenet_v2(
    C: int, kernel: Sequence[int], *, activation: Activation = None, norm: bool = False
) -> nn.Module:
    """Half of C passes; 1x1, depthwise, 1x1 on the other half; shuffle."""
    _check(kernel, C=C)
    if C % 2:
        raise ValueError(f"C={C}: an even number of channels is needed.")
    half, point = C // 2, _point(kernel)
    branch = nn.Sequential(
        *_unit(half, half, point, activation, norm=norm),
        *_unit(half, half, kernel, None, norm=norm, groups=half),
        *_unit(half, half, point, activation, norm=norm),
    )
    return SplitShuffle(branch)


def fire(
    C: int,
    K: int,
    kernel: Sequence[int],
    *,
    squeeze: int,
    activation: Activation = None,
    norm: bool = False,
) -> nn.Module:
    """1x1 (C -> squeeze), then K/2 channels of 1x1 and K/2 of spatial convolution: SqueezeNet."""
    _check(kernel, C=C, K=K, squeeze=squeeze)
    if K % 2:
        raise ValueError(f"K={K}: an even number of channels is needed.")
    point = _point(kernel)
    return Fire(
        nn.Sequential(*_unit(C, squeeze, point, activation, norm=norm)),
        nn.Sequential(*_unit(squeeze, K // 2, point, activation, norm=norm)),
        nn.Sequential(*_unit(squeeze, K // 2, kernel, activation, norm=norm)),
    )


def convnext(
    C: int,
    kernel: Sequence[int],
    *,
    expansion: int = 4,
    activation: Activation = None,
    norm: bool = False,
) -> nn.Module:
    """Skip around depthwise, 1x1 (C -> tC), activation, 1x1 (tC -> C): ConvNeXt.

    ``norm`` is one GroupNorm of one group behind the depthwise convolution, which stands for its
    layer norm.
    """
    _check(kernel, C=C, expansion=expansion)
    point = _point(kernel)
    depthwise = _unit(C, C, kernel, None, norm=False, groups=C)
    if norm:
        depthwise.append(nn.GroupNorm(1, C))
    wide = _unit(C, expansion * C, point, activation, norm=False)
    return Residual(
        nn.Sequential(*depthwise, *wide, *_unit(expansion * C, C, point, None, norm=False))
    )
