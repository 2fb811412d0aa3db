"""Blocks and linear runs: where K and R are, and of which kind their redundancy is."""

from dataclasses import dataclass, replace

from krratio.auditing.structure.flow import Flow
from krratio.auditing.structure.layers import MixingLayer
from krratio.theory import counts

__all__ = ["CLASSES", "Block", "blocks", "classes"]

CLASSES = ("none", "exact", "branch only", "approximate", "bound only", "saturated", "unknown")
"""Kinds of redundancy; see :func:`classes`."""


@dataclass(frozen=True)
class Block:
    """A spatial convolution and the pointwise layer behind it on one data path.

    Attributes
    ----------
    spatial, pointwise
        The two.
    reduction
        The pointwise layer before, if there is one.
    next_width
        Weights per channel of what reads the K channels.
    """

    spatial: MixingLayer
    pointwise: MixingLayer
    reduction: MixingLayer | None
    next_width: int

    @property
    def layers(self) -> tuple[MixingLayer, ...]:
        """Its layers, in order."""
        parts = (self.reduction, self.spatial, self.pointwise)
        return tuple(part for part in parts if part is not None)

    @property
    def K(self) -> int:  # noqa: N802 - the symbol of the theory
        """Channels that the pointwise layer puts out."""
        return self.pointwise.K

    @property
    def R(self) -> int:  # noqa: N802 - the symbol of the theory
        """Channels that enter the pointwise layer."""
        return self.pointwise.C

    @property
    def kind(self) -> str:
        """By what comes before and how the spatial convolution groups channels."""
        entering = self.reduction
        if self.spatial.depthwise:
            if entering is None:
                return "depthwise_separable_block"
            wider = entering.K > entering.C
            return "inverted_residual_block" if wider else "depthwise_bottleneck_block"
        if self.spatial.groups > 1:
            return "grouped_bottleneck_block" if entering else "grouped_expansion_block"
        return "bottleneck_block" if entering else "expansion_block"

    @property
    def naive(self) -> int:
        """Entries of the block's weights and of those that read its K channels."""
        own = self.spatial.entries + self.pointwise.entries
        return own + (self.reduction.entries if self.reduction else 0) + self.K * self.next_width

    @property
    def covering(self) -> int:
        """Covering exponent of the block as a linear map: Tucker, CP if depthwise, or by groups."""
        l, R, P = self.spatial.window, self.R, max(1, self.next_width)
        entering = self.reduction
        modes = (l,) if entering is None else (entering.C, l)
        if self.spatial.depthwise:
            return counts.cp(l=modes, R=R, K=self.K, P=P).covering
        if self.spatial.groups > 1:  # no format of the theory: what is left when K folds to R
            own = self.spatial.entries + (entering.entries if entering else 0)
            return own + min(self.K, R) * self.next_width
        whole = (self.spatial.C, l) if entering is None else modes
        ranks = (None, None) if entering is None else (entering.K, None)
        return counts.tucker(l=whole, R_j=ranks, R=R, K=self.K, P=P).covering

    @property
    def saturated(self) -> bool:
        """Whether the block, made linear, has as many dimensions as all convolutions C -> K.

        Then there is no compression in it: a dense layer has as many. (Its kernels contain an open
        set of all kernels; over the reals that need not be every one.) Chapter 08 derives it of the
        inverted residual with t = 6. A skip around the block is not taken into account.
        """
        entering, l, R = self.reduction, self.spatial.window, self.R
        C = self.spatial.C if entering is None else entering.C
        grouped = self.pointwise.groups > 1 or (entering is not None and entering.groups > 1)
        if grouped or (self.spatial.groups > 1 and not self.spatial.depthwise):
            return False
        if not self.spatial.depthwise:
            first = C if entering is None else entering.K
            return min(self.K, C * l) <= R and min(C, l * self.K) <= first
        if entering is None or self.spatial.K != self.spatial.C:
            return False  # every input channel has filters of its own, and few of them
        return counts.cp_dimension((C, l, self.K), R) == C * l * self.K


def blocks(flow: Flow) -> list[Block]:
    """All blocks, in order."""
    found = []
    for layer in flow.layers:
        if layer.pointwise or layer.kind == "linear" or "transpose" in layer.kind:
            continue
        behind = flow.follow(layer.target)
        if behind is not None and behind.pointwise and behind.C == layer.K:
            found.append(Block(layer, behind, flow.before(layer), flow.next_width(behind.target)))
    taken = {block.pointwise.operation for block in found}  # the last layer of another block
    return [
        replace(block, reduction=None)
        if block.reduction is not None and block.reduction.operation in taken
        else block
        for block in found
    ]


def classes(flow: Flow, value: int, *, K: int, R: int) -> list[str]:
    """What kind of redundancy K channels of rank at most R have, strongest obstacle first.

    Of blocks two more are said besides: *bound only*, the covering exponent exceeds the parameters,
    and *saturated*, :attr:`Block.saturated`.

    *none*: K <= R. *branch only*: a sum joins, and what can pass is the sum of the ranks of all
    that is added: behind a skip only the branch is redundant, behind other layers of low rank the
    sum is too, and the row of the linear run says how far. *approximate*: an activation, another
    normalization or a grouped layer follows, a layer reads the channels where they were moved among
    places (pixel shuffle, a reshape that cuts across them), or the network ends. *unknown*: an
    operation follows that is not understood. *exact*: nothing but linear layers dense in channels
    follows, so that the channels fold to R.
    """
    if K <= R:
        return ["none"]
    layers, obstacles = flow.onward(value)
    found = {
        "unknown": "unknown" in obstacles,
        "branch only": "sum" in obstacles,
        "approximate": bool({"activation", "grouped", "regrouped", "output"} & set(obstacles)),
    }
    met = [name for name, present in found.items() if present]
    return met or (["exact"] if layers else ["none"])
