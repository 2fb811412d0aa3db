"""Symmetries as explicit kernel fields: what changes the weights and not the function.

Every field here leaves the function unchanged to first order *identically* in the weights, for a
reason that stands beside it. Their rank modulo the prime is at most their generic rank, so (number
of columns) - (that rank) is an upper bound of the dimension over the rationals.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from krratio.networks.layers import BatchNorm, Conv, Linear
from krratio.theory.modular.channels import Channels, dense
from krratio.theory.modular.edges import Edge
from krratio.theory.modular.reach import affine
from krratio.theory.modular.sketch import Point
from krratio.theory.modular.slots import Slot, moved

__all__ = ["Change", "gauge_fields", "shift_fields"]

Change = dict[int, Tensor]
"""For each owner that a family of fields moves, the changes (fields, kept columns)."""


class Family:
    """What the fields of one edge need to know, and how a change becomes columns."""

    def __init__(self, point: Point, axes: Channels, slots: dict[int, Slot], edge: Edge) -> None:
        self.field, self.graph, self.axes, self.slots = point.field, point.graph, axes, slots
        self.edge = edge

    def weight(self, i: int) -> Tensor:
        """Dense weight (g, k, c, a) of a node."""
        node = self.graph.nodes[i]
        assert isinstance(node.layer, Conv | Linear)
        return dense(node.layer, self.axes.count[node.inputs[0]])

    def tensor(self, i: int, name: str) -> Tensor | None:
        """A weight of a node, or None if it has none of that name."""
        return self.graph.nodes[i].layer.weights().get(name)

    def free(self, i: int, name: str) -> bool:
        """Whether that weight varies and is used here alone."""
        tensor = self.tensor(i, name)
        return tensor is not None and id(tensor) in self.slots and not self.slots[id(tensor)].shared

    def columns(self, i: int, name: str, change: Tensor) -> Change:
        """Columns of a change of one weight."""
        owner = id(self.tensor(i, name))
        return {owner: moved(self.field, self.slots[owner], change)}


def gauge_fields(
    point: Point, axes: Channels, slots: dict[int, Slot], edge: Edge, *, bias: bool
) -> Iterator[Change]:
    """Fields of mixing channel j into channel i behind the producer, undone in every consumer.

    For E = e_i e_j^T: dA = E A and dB = -B E, with E conjugated by the scales of BatchNorm on the
    way. Channels mix where they lie in one group of the producer and of every consumer; scaling
    (i = j) is always allowed. BatchNorm adds its own scaling against the producer's.
    """
    family = Family(point, axes, slots, edge)
    sides = [edge.producer, *(consumer for consumer, _ in edge.consumers)]
    if all(family.free(i, "weight") for i in sides):
        absorb = _absorber(family, bias=bias)
        if absorb is not None:
            left, right = _needed(family)
            for i in left:
                partners = [j for j in right if _mixes(family, i, j)]
                if partners:
                    yield _mix(family, i, partners, absorb, bias=bias)
    if family.free(edge.producer, "weight"):
        yield from _norm_scalings(family, bias=bias)


def shift_fields(
    point: Point, axes: Channels, slots: dict[int, Slot], edge: Edge
) -> Iterator[Change]:
    """Fields of a constant added to a channel and taken off again in the next offset.

    The next offset is that of a BatchNorm on the way, or those of all consumers; these see the
    constant at every place of the window only if nothing is padded with zeros.
    """
    family = Family(point, axes, slots, edge)
    if not edge.even or len(edge.norms) > 1:
        return
    source = family.free(edge.producer, "bias")
    middle = [(i, place) for i, place in edge.norms if family.free(i, "bias")]
    if source and middle:
        yield _shift_into_norm(family, *middle[0])
    if middle or source:
        change = _shift_into_consumers(family)
        if change is not None:
            size = axes.count[edge.producer]
            i, place = middle[0] if middle else (edge.producer, torch.arange(size))
            ones = torch.eye(size, dtype=torch.int64)[:, place.argsort()]
            if not middle and edge.norms:
                scale, _ = _affine(family)
                change = {o: family.field.multiply(c, scale[:, None]) for o, c in change.items()}
            yield change | family.columns(i, "bias", ones)


def _shift_into_norm(family: Family, norm: int, place: Tensor) -> Change:
    scale, _ = _affine(family)
    ones = torch.eye(len(scale), dtype=torch.int64)
    down = torch.diag(family.field.negative(scale))[:, place.argsort()]
    return family.columns(family.edge.producer, "bias", ones) | family.columns(norm, "bias", down)


def _shift_into_consumers(family: Family) -> Change | None:
    """Offsets of the consumers that undo a constant one in each channel."""
    change: Change = {}
    for consumer, place in family.edge.consumers:
        layer = family.graph.nodes[consumer].layer
        padded = isinstance(layer, Conv) and any(map(any, layer.padding))
        if padded or not family.free(consumer, "bias"):
            return None
        weight = family.field.sum(family.weight(consumer), 3)  # g, k, c
        per_channel = torch.block_diag(*weight.transpose(1, 2))  # channels in, channels out
        down = family.field.negative(per_channel[place])
        change |= family.columns(consumer, "bias", down)
    return change


def _affine(family: Family) -> tuple[Tensor, Tensor]:
    """Scale and shift that the channels of the producer meet on the way to the consumers."""
    size, field = family.axes.count[family.edge.producer], family.field
    scale = torch.ones(size, dtype=torch.int64)
    shift = torch.zeros(size, dtype=torch.int64)
    for norm, place in family.edge.norms:
        layer = family.graph.nodes[norm].layer
        assert isinstance(layer, BatchNorm)
        factor, constant = (values[place] for values in affine(layer, field))
        scale = field.multiply(scale, factor)
        shift = field.add(field.multiply(shift, factor), constant)
    return scale, shift


def _absorber(family: Family, *, bias: bool) -> tuple[int, str, Tensor] | None:
    """Which offset takes the constants that mixing moves, and the places of the channels there.

    None where constants would move and no offset is free to take them.
    """
    edge = family.edge
    own = torch.arange(family.axes.count[edge.producer])
    if not bias:
        return edge.producer, "", own
    if family.tensor(edge.producer, "bias") is not None and not family.free(edge.producer, "bias"):
        return None
    if not edge.norms:
        return edge.producer, "", own
    norm, place = edge.norms[0]
    if len(edge.norms) == 1 and family.free(norm, "bias"):
        return norm, "bias", place
    if edge.even and family.free(edge.producer, "bias"):
        return edge.producer, "bias", own
    return None


def _needed(family: Family) -> tuple[list[int], list[int]]:
    """Channels i and j that suffice: dA and dB depend on P E Q alone."""
    producer = family.slots[id(family.tensor(family.edge.producer, "weight"))]
    everything = list(range(family.axes.count[family.edge.producer]))
    consumer, place = family.edge.consumers[0]
    reader = family.slots[id(family.tensor(consumer, "weight"))]
    if max(len(producer.left), *(len(family.weight(c)) for c, _ in family.edge.consumers)) > 1:
        return everything, everything
    pivots = set(reader.right[0].pivots)
    return producer.left[0].pivots, [j for j in everything if int(place[j]) in pivots]


def _mixes(family: Family, i: int, j: int) -> bool:
    """Whether two channels lie in one group of the producer and of every consumer."""
    size = family.weight(family.edge.producer).shape[1]
    together = i // size == j // size
    for consumer, place in family.edge.consumers:
        size = family.weight(consumer).shape[2]
        together &= int(place[i]) // size == int(place[j]) // size
    return together


def _mix(
    family: Family, i: int, partners: list[int], absorb: tuple[int, str, Tensor], *, bias: bool
) -> Change:
    """Channel j mixed into channel i, for each partner j."""
    field, edge, count = family.field, family.edge, len(partners)
    scale, shift = _affine(family)
    back = field.inverse(int(scale[i]))
    ratio = field.multiply(scale[partners], back)
    weight = family.weight(edge.producer)
    change = weight.new_zeros(count, *weight.shape)
    group, row = divmod(i, weight.shape[1])
    sources = weight[group][[j % weight.shape[1] for j in partners]]
    change[:, group, row] = field.multiply(sources, ratio[:, None, None])
    result = family.columns(edge.producer, "weight", change)
    node, name, place = absorb
    if bias and (offsets := family.tensor(edge.producer, "bias")) is not None:
        moved_offset = offsets.new_zeros(count, len(offsets))
        moved_offset[:, i] = field.multiply(offsets[partners], ratio)
        if name and node == edge.producer:
            constant = field.multiply(shift[partners], back)
            moved_offset[:, i] = field.add(moved_offset[:, i], constant)
        result |= family.columns(edge.producer, "bias", moved_offset)
    if name and node != edge.producer:
        taken = shift.new_zeros(count, len(shift))
        taken[:, int(place[i])] = shift[partners]
        result |= family.columns(node, "bias", taken)
    for consumer, at in edge.consumers:
        result |= family.columns(consumer, "weight", _undo(family, consumer, at, i, partners))
    return result


def _undo(family: Family, consumer: int, place: Tensor, i: int, partners: list[int]) -> Tensor:
    """Take the mixing off again in a consumer: dB = -B e_i e_j^T."""
    weight = family.weight(consumer)
    group, column = divmod(int(place[i]), weight.shape[2])
    change = weight.new_zeros(len(partners), *weight.shape)
    down = family.field.negative(weight[group][:, column])
    for f, j in enumerate(partners):
        change[f, group, :, int(place[j]) % weight.shape[2]] = down
    return change


def _norm_scalings(family: Family, *, bias: bool) -> Iterator[Change]:
    """A factor moved from the producer's channel to the weight of a BatchNorm behind it."""
    edge, field = family.edge, family.field
    if bias and len(edge.norms) > 1:
        return
    weight = family.weight(edge.producer)
    size = family.axes.count[edge.producer]
    pick = torch.eye(size, dtype=torch.int64)
    down = field.multiply(pick.reshape(size, *weight.shape[:2], 1, 1), field.negative(weight))
    for norm, place in edge.norms:
        layer = family.graph.nodes[norm].layer
        assert isinstance(layer, BatchNorm)
        if layer.weight is None or not family.free(norm, "weight"):
            continue
        offsets = _scaled_offsets(family, norm, place) if bias else {}
        if offsets is not None:
            up = torch.diag(layer.weight[place])[:, place.argsort()]
            yield (
                family.columns(edge.producer, "weight", down)
                | family.columns(norm, "weight", up)
                | offsets
            )


def _scaled_offsets(family: Family, norm: int, place: Tensor) -> Change | None:
    """Offsets that keep the constants while a factor moves; None where none is free."""
    producer, field = family.edge.producer, family.field
    layer, offset = family.graph.nodes[norm].layer, family.tensor(family.edge.producer, "bias")
    assert isinstance(layer, BatchNorm)
    own = torch.zeros_like(place) if offset is None else field.negative(offset)
    if offset is not None and not family.free(producer, "bias"):
        return None
    if family.free(norm, "bias"):
        scale, _ = affine(layer, field)
        kept = torch.diag(field.multiply(scale, layer.mean)[place])[:, place.argsort()]
        change = family.columns(norm, "bias", kept)
        if offset is not None:
            change |= family.columns(producer, "bias", torch.diag(own))
        return change
    if offset is None or not family.edge.even:
        return None
    return family.columns(producer, "bias", torch.diag(field.add(own, layer.mean[place])))
