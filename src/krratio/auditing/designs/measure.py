"""What the kit says of each block design: format, counts, exact dimension, K, R and class."""

import math
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from typing import Any

import pandas as pd
from torch import nn

from krratio.auditing.audit import audit
from krratio.auditing.designs.zoo import SIZES, Design, linear_network
from krratio.networks import blocks
from krratio.theory.counts import count
from krratio.theory.dimension import intrinsic_dimension

__all__ = ["measure"]


def measure(found: Iterable[Design], *, seed: int) -> pd.DataFrame:
    """Format, counts, exact dimension, K, R and class of each design, as a tidy frame.

    Parameters
    ----------
    found
        The designs.
    seed
        Draws points and primes of the exact dimension.

    Returns
    -------
    DataFrame
        ``design``; ``format`` of the linear network; ``K``, ``R``, ``ratio`` of the audit's block
        (NaN where no spatial convolution leads to a pointwise one) and its class, ``linear`` in the
        linear network and ``real`` with ReLU in front of a second block; ``edge`` and ``rank``, the
        channels of the linear network that are most above the rank that can cross them, and that
        rank; ``naive``, ``covering``, ``intrinsic`` counts; the dimension ``predicted`` by formula;
        the ``exact`` one, and whether it is a ``theorem``.
    """
    return pd.DataFrame([_measured(design, seed) for design in found])


def _measured(design: Design, seed: int) -> dict[str, Any]:
    net, shape = linear_network(design), (design.C, *SIZES)
    twice = nn.Sequential(design.block(nn.ReLU), _next(design).block(nn.ReLU)).to("meta")
    counts, exact = count(net, shape), intrinsic_dimension(net, shape, seed=seed)
    assert exact.certificate is not None
    linear = audit(net, shape).to_frame()
    block, real = _first(linear, "block"), _first(audit(twice, shape).to_frame(), "block")
    edge = _first(linear, "chain")
    return {
        "design": design.name,
        "format": counts.format,
        "K": block["K"],
        "R": block["R"],
        "ratio": block["ratio"],
        "linear": block["redundancy"],
        "real": real["redundancy"],
        "edge": edge["K"],
        "rank": edge["R"],
        "naive": counts.naive,
        "covering": counts.covering,
        "intrinsic": counts.intrinsic,
        "predicted": design.dimension,
        "exact": exact.value,
        "theorem": exact.certificate.theorem,
    }


def _first(frame: pd.DataFrame, level: str) -> dict[str, Any]:
    """The first row of a level; NaN and no class if there is none."""
    rows: list[Any] = frame[frame["level"] == level].to_dict("records")
    return rows[0] if rows else dict.fromkeys(frame.columns, math.nan) | {"redundancy": ""}


def _next(design: Design) -> Design:
    """A block that takes the channels which leave the design: itself where they agree."""
    if design.C == design.K:
        return design
    return replace(design, C=design.K, build=partial(blocks.standard, design.K, design.K, (3, 3)))
