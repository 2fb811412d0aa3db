"""Which axes the channels of a layer lie on, as far as it can be told."""

import math
from collections.abc import Sequence

from krratio.auditing.walking.kinds import Role, role_of
from krratio.auditing.walking.operations import Operation

__all__ = ["Layout", "channels_on", "layout_after", "places_on", "start"]

Shape = tuple[int, ...]
Part = tuple[bool, int]
"""Whether it counts channels, and how many."""
Layout = tuple[tuple[Part, ...], ...]
"""For each axis what it runs through, the slowest part first; parts of size one are left out."""

_VIEWS = frozenset(
    "view _unsafe_view reshape _reshape_alias flatten unflatten squeeze unsqueeze clone contiguous "
    "as_strided alias detach _to_copy to copy lift_fresh expand".split()
)
_REORDERED = frozenset("transpose swapaxes permute t".split())


def start(shape: Shape, axis: int) -> Layout:
    """Layout of a value whose channels lie on one axis."""
    return tuple(((i == axis % len(shape), size),) * (size > 1) for i, size in enumerate(shape))


def channels_on(layout: Layout, axis: int) -> tuple[bool, bool]:
    """Whether channels lie on an axis, and whether some lie on others."""
    held = [any(channel for channel, _ in parts) for parts in layout]
    here = held.pop(axis % len(layout))
    return here, any(held)


def places_on(layout: Layout | None) -> int:
    """Places that lie on one axis with the channels; 1 where it cannot be told."""
    axes = [parts for parts in layout or () if any(channel for channel, _ in parts)]
    return math.prod(size for parts in axes for channel, size in parts if not channel)


def layout_after(
    operation: Operation, before: Shape, after: Shape, layout: Layout | None
) -> Layout | None:
    """Layout behind an operation that is no layer; None where it cannot be told.

    Parameters
    ----------
    operation
        Any but a layer.
    before, after
        Shapes of what it reads and puts out.
    layout
        Of what it reads.
    """
    if layout is None:
        return None
    name = operation.name.rstrip("_")
    if name in ("mean", "sum"):
        return _reduced(operation, len(before), len(after), layout)
    if name == "stack":
        axis = _number(operation.options.get(1, 0)) % len(after)
        return (*layout[:axis], ((False, after[axis]),), *layout[axis:])
    if role_of(operation.name) is Role.MOVE:
        return _moved(operation, name, before, after, layout)
    return _resized(layout, after)


def _moved(
    operation: Operation, name: str, before: Shape, after: Shape, layout: Layout
) -> Layout | None:
    if name in _REORDERED:
        order = _order(operation, name, len(before))
        return None if order is None else tuple(layout[i] for i in order)
    if name in ("pixel_shuffle", "pixel_unshuffle"):
        return _shuffled(layout, before, after, out=name == "pixel_shuffle")
    if name in ("select", "unbind"):
        axis = _number(operation.options.get(1, 0)) % len(before)
        chosen = any(channel for channel, _ in layout[axis])
        return None if chosen else (*layout[:axis], *layout[axis + 1 :])
    if name == "unfold":
        return (*(_resized(layout, after[:-1]) or ()), ((False, after[-1]),))
    if name == "im2col" and len(before) == 4:
        window = (False, after[1] // before[1])
        return (layout[0], (*layout[1], window), ((False, after[2]),))
    if name in _VIEWS and math.prod(before) == math.prod(after):
        return layout if before == after else _regrouped(layout, after)
    return _resized(layout, after)


def _order(operation: Operation, name: str, size: int) -> list[int] | None:
    order = list(range(size))
    if name == "t":
        return order[::-1]
    if name == "permute":
        dims = operation.options.get(1)
        return [d % size for d in dims] if isinstance(dims, (list, tuple)) else None
    one, other = (_number(operation.options.get(i)) % size for i in (1, 2))
    order[one], order[other] = order[other], order[one]
    return order


def _number(option: object) -> int:
    return option if isinstance(option, int) else 0


def _reduced(operation: Operation, size: int, left: int, layout: Layout) -> Layout:
    """Behind a mean or a sum over axes, which are kept with one entry or left out."""
    dims = operation.options.get(1)
    given = dims if isinstance(dims, (list, tuple)) else [] if dims is None else [dims]
    axes = {d % size for d in given} or set(range(size))
    if left == size:
        return tuple(() if i in axes else parts for i, parts in enumerate(layout))
    return tuple(parts for i, parts in enumerate(layout) if i not in axes)


def _resized(layout: Layout, after: Shape) -> Layout | None:
    """Axes as they were, some longer or shorter, new ones before them."""
    new = len(after) - len(layout)
    if new < 0:
        return None
    whole = (((),) * new + layout) if new else layout
    return tuple(_part(parts, size) for parts, size in zip(whole, after, strict=True))


def _part(parts: Sequence[Part], size: int) -> tuple[Part, ...]:
    if math.prod(n for _, n in parts) == size:
        return tuple(parts)
    return ((any(channel for channel, _ in parts), size),)


def _shuffled(layout: Layout, before: Shape, after: Shape, *, out: bool) -> Layout | None:
    """Pixel shuffle: a part of each channel axis goes into the places, or the other way."""
    *images, _, H, W = range(len(before))
    first, (C, h, w) = before[: len(images)], (after if out else before)[-3:]
    r = after[-1] // before[-1] if out else before[-1] // after[-1]
    n = len(images)
    if out:
        split, order = (*first, C, r, r, before[H], before[W]), (n, n + 3, n + 1, n + 4, n + 2)
    else:
        split, order = (*first, C, h // r, r, w // r, r), (n, n + 2, n + 4, n + 1, n + 3)
    parts = _regrouped(layout, split)
    if parts is None:
        return None
    return _regrouped(tuple(parts[i] for i in (*images, *order)), after)


def _regrouped(layout: Layout, after: Shape) -> Layout | None:
    """Behind a view: the parts of all axes, in order, over new axes; some are split."""
    rest = [part for parts in layout for part in parts if part[1] > 1][::-1]
    found = []
    for size in after:
        taken: list[Part] = []
        while size > 1:
            if not rest:
                return None
            channel, whole = rest.pop()
            if whole > size and whole % size == 0:
                rest.append((channel, whole // size))
                whole = size
            if size % whole:
                return None
            taken.append((channel, whole))
            size //= whole
        found.append(tuple(taken))
    return tuple(found)
