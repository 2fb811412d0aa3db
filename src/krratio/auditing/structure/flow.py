"""Who reads what: data paths between layers, and what stands in their way."""

from collections.abc import Iterator

from krratio.auditing.structure.axes import Layout, channels_on, layout_after, places_on, start
from krratio.auditing.structure.layers import MixingLayer, mixing_layers
from krratio.auditing.walking.kinds import Role, as_used, role_of
from krratio.auditing.walking.operations import Operation, Walk

__all__ = ["Flow"]

_LINEAR = {Role.BATCH_NORM, Role.AVERAGE, Role.MOVE, Role.PAD, Role.RESIZE, Role.CONCAT}
_PER_CHANNEL = {Role.BATCH_NORM, Role.NORM, Role.ACTIVATION, Role.MOVE, Role.PAD}
_POINTWISE = {Role.ACTIVATION, Role.ADD, Role.MULTIPLY}
_GATE = 40  # operations that a gate may consist of


class Flow:
    """A walk with its layers and the readers and makers of every value."""

    def __init__(self, walk: Walk) -> None:
        self.walk = walk
        self.layers = mixing_layers(walk)
        self.at = {layer.operation: layer for layer in self.layers}
        self.readers, self.makers = _read(walk), walk.makers()
        self._products: dict[int, bool] = {}

    def role(self, i: int) -> Role:
        """Role of an operation; a product of two values is no linear layer."""
        operation = self._operation(i)
        role = role_of(operation.name)
        if role in (Role.CONV, Role.MATRIX) and i not in self.at:
            return Role.MULTIPLY
        if role is Role.BATCH_NORM and any(o is True for o in operation.options.values()):
            return Role.NORM  # by statistics of the input: instance norm, or no running ones
        return as_used(operation)

    def joins(self, i: int) -> bool:
        """Whether an operation reads two values; for products also one value twice."""
        inputs = self._operation(i).inputs
        return len(inputs if self.role(i) is Role.MULTIPLY else set(inputs)) > 1

    def follow(self, value: int) -> MixingLayer | None:
        """The layer at the end of the one data path from a value, or None where it ends earlier.

        Batch norm, activations, gates (squeeze-and-excitation), shuffles and padding may lie on the
        way; pooling, sums, concatenations and splits end it, and layers along another axis.
        """
        layout = self.layout(value)
        while True:
            step = self._step(value)
            if step is None:
                return None
            if step in self.at:
                return self.at[step] if self.reads(step, layout) else None
            output = self._operation(step).outputs[0]
            layout = self.layout_after(step, value, output, layout)
            value = output

    def _step(self, value: int) -> int | None:
        if value in self.walk.outputs:
            return None
        readers = self.readers[value]
        if len(readers) > 1:
            products = [i for i in readers if self.role(i) is Role.MULTIPLY and self.joins(i)]
            gates = [i for i in products if self._rejoins(value, i)]
            return gates[0] if gates else None
        if not readers:
            return None
        (i,) = readers
        role = self.role(i)
        if i in self.at:
            return i
        alone = role in (Role.ADD, Role.MULTIPLY) and not self.joins(i)
        split = len(self._used(i)) > 1
        return i if (role in _PER_CHANNEL or alone) and not split else None

    def _used(self, i: int) -> list[int]:
        """Outputs of an operation that somebody reads or that the network returns."""
        outputs = self._operation(i).outputs
        return [v for v in outputs if self.readers[v] or v in self.walk.outputs]

    def _rejoins(self, value: int, product: int) -> bool:
        """Whether everything that reads a value ends in one product: a gate."""
        seen, open_ = set(), [i for i in self.readers[value] if i != product]
        while open_:
            i = open_.pop()
            if i in seen:
                continue
            seen.add(i)
            for output in self._operation(i).outputs:
                if output in self.walk.outputs or len(seen) > _GATE:
                    return False
                open_ += [j for j in self.readers[output] if j != product]
        # A residual branch ends in a product never, a gate always: nothing may run past it.
        return all(j <= product for j in seen)

    def before(self, layer: MixingLayer) -> MixingLayer | None:
        """The pointwise layer from which the one data path leads to a layer."""
        value = layer.source
        while True:
            i = self.makers.get(value)
            if i is None:
                return None
            if i in self.at:
                found = self.at[i]
                return found if found.pointwise and self.follow(found.target) is layer else None
            if self.role(i) not in _PER_CHANNEL | {Role.MULTIPLY, Role.ADD}:
                return None
            inputs = self._operation(i).inputs
            value = inputs[0]

    def onward(self, value: int) -> tuple[dict[int, int], list[str]]:
        """Layers that read a value through what is linear, and the obstacles on the way.

        Layers come by their operation, with the number of places that flattening gave each channel
        (1 without it). Obstacles are ``"sum"``, ``"activation"`` (and whatever is not linear),
        ``"grouped"``, ``"regrouped"`` (a layer reads channels that were moved among places),
        ``"output"`` and ``"unknown"``.
        """
        layers: dict[int, int] = {}
        obstacles: dict[str, None] = {}
        for kind, layer, places in self._explore(value):
            if layer is not None:
                layers[layer] = places
            if kind:
                obstacles[kind] = None
        return layers, list(obstacles)

    def _explore(self, value: int) -> Iterator[tuple[str, int | None, int]]:
        seen: set[int] = set()
        open_ = [(value, 1, self.layout(value))]
        while open_:
            here, places, layout = open_.pop()
            if here in seen:
                continue
            seen.add(here)
            if here in self.walk.outputs:
                yield "output", None, places
            for i in self.readers[here]:
                if i in self.at and self.reads(i, layout):
                    yield "grouped" if self.at[i].groups > 1 else "", i, places
                    continue
                along = i in self.at and self._along(i, layout)
                if i in self.at and not along:
                    yield "regrouped", None, places
                    continue
                role, joins = self.role(i), self.joins(i)
                if role is Role.ADD and joins:
                    yield "sum", None, places
                gate = role is Role.MULTIPLY and joins and not self._of_one_value(i)
                passes = along or self.linear(i)
                if gate or role is Role.UNKNOWN or not passes:
                    yield ("unknown" if role is Role.UNKNOWN else "activation"), None, places
                if gate or passes:  # a gate keeps the channels and scales them
                    for output in self._operation(i).outputs:
                        next_ = self.layout_after(i, here, output, layout)
                        open_.append((output, places * self.spread(layout, next_), next_))

    def layout(self, value: int) -> Layout | None:
        """Axis on which a layer puts its channels out; None for other values."""
        layer = self.at.get(self.makers.get(value, -1))
        return None if layer is None else start(self.walk.shapes[value], layer.axis)

    def layout_after(self, i: int, value: int, output: int, layout: Layout | None) -> Layout | None:
        """Axes of the channels behind an operation, or behind a layer along another axis."""
        shapes = self.walk.shapes
        if i in self.at:
            axis = self.at[i].axis % len(shapes[output])
            new = ((False, shapes[output][axis]),)
            return layout and (*layout[:axis], new, *layout[axis + 1 :])
        return layout_after(self._operation(i), shapes[value], shapes[output], layout)

    def reads(self, i: int, layout: Layout | None) -> bool:
        """Whether a layer reads all channels, wherever they are known to lie."""
        layer = self.at[i]
        if layout is None or layer.kind == "embedding":
            return False
        _, others = channels_on(layout, layer.axis)
        return not others

    def _along(self, i: int, layout: Layout | None) -> bool:
        """Whether a linear layer mixes places and keeps the channels."""
        layer = self.at[i]
        if layout is None or layer.kind != "linear":
            return False
        here, _ = channels_on(layout, layer.axis)
        return not here

    @staticmethod
    def spread(before: Layout | None, after: Layout | None) -> int:
        """Places that an operation puts on one axis with the channels."""
        return max(1, places_on(after) // places_on(before))

    def _of_one_value(self, product: int) -> bool:
        """Whether a product is a function of one value place by place, such as x · sigmoid(x)."""
        if product not in self._products:
            self._products[product] = self._found_alone(product)
        return self._products[product]

    def _found_alone(self, product: int) -> bool:
        candidates = list(dict.fromkeys(self._operation(product).inputs))
        for value in candidates:  # also those from which they were made; the list grows
            if self._reaches(value, product):
                return True
            maker = self.makers.get(value)
            if maker is not None and self._pointwise(maker) and len(candidates) < _GATE:
                more = self._operation(maker).inputs
                candidates += [v for v in more if v not in candidates]
        return False

    def _reaches(self, value: int, product: int) -> bool:
        """Whether all that a product reads is made of one value alone, place by place."""
        reached = {value}
        for i in range(self.makers.get(value, -1) + 1, product):
            operation = self._operation(i)
            if self._pointwise(i) and reached.issuperset(operation.inputs):
                reached.update(operation.outputs)
        return reached.issuperset(self._operation(product).inputs)

    def _pointwise(self, i: int) -> bool:
        operation = self._operation(i)
        shapes = {self.walk.shapes[v] for v in (*operation.inputs, *operation.outputs)}
        return self.role(i) in _POINTWISE and i not in self.at and len(shapes) == 1

    def linear(self, i: int) -> bool:
        """Whether an operation that is no layer is linear, and keeps channels apart."""
        role = self.role(i)
        if role is Role.MOVE and self.joins(i):  # to places that depend on the input
            return False
        return role in _LINEAR or role is Role.ADD or (role is Role.MULTIPLY and not self.joins(i))

    def next_width(self, value: int) -> int:
        """Weights per channel of the layers next on the way, whatever lies between."""
        seen: set[int] = set()
        open_, width, weights = [(value, 1, self.layout(value))], 0, set()
        while open_:
            here, places, layout = open_.pop()
            for i in self.readers[here]:
                if i in seen:
                    continue
                seen.add(i)
                layer = self.at.get(i)
                if layer is None:
                    for output in self._operation(i).outputs:
                        next_ = self.layout_after(i, here, output, layout)
                        open_.append((output, places * self.spread(layout, next_), next_))
                elif layer.weight not in weights:
                    weights.add(layer.weight)
                    width += places * (layer.entries // layer.C)
        return width

    def _operation(self, i: int) -> Operation:
        return self.walk.operations[i]


def _read(walk: Walk) -> dict[int, list[int]]:
    """For each value the operations that read it, but no views that nobody reads.

    Torch looks at a transpose while it chooses how to multiply.
    """
    readers = walk.readers()
    for i in reversed(range(len(walk.operations))):
        operation = walk.operations[i]
        used = any(readers[v] or v in walk.outputs for v in operation.outputs)
        if role_of(operation.name) is Role.MOVE and not used:
            for value in set(operation.inputs):
                readers[value].remove(i)
    return readers
