"""What a walk writes down: operations, and the values between them."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Operation", "Walk"]

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Operation:
    """One operation that torch dispatched.

    Attributes
    ----------
    name
        Of the operator, such as ``"convolution"``.
    module
        Path of the innermost module that was running; empty for the network itself.
    inputs, outputs
        Values read and made, by number; the network's inputs come first.
    arguments
        For each tensor argument in order: the number of a value, or the name of a weight.
    shapes
        Shape of each tensor argument.
    options
        The arguments that are no tensors, by position, or by name where they have none.
    """

    name: str
    module: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    arguments: tuple[int | str, ...]
    shapes: tuple[Shape, ...]
    options: Mapping[int | str, Any]


@dataclass(eq=False)
class Walk:
    """The operations of one forward, in order.

    Attributes
    ----------
    operations
        Those that depend on the inputs.
    shapes
        Of every value, with the batch.
    weights
        Name -> shape of all parameters and buffers; one tensor has one name, its first.
    trainable
        Names of those that are parameters.
    unseen
        (module, operator) of layers whose input did not come from the network's, as far as could be
        seen: constants, and values written into them.
    outputs
        Values that the network returns.
    """

    operations: list[Operation] = field(default_factory=list)
    shapes: dict[int, Shape] = field(default_factory=dict)
    weights: dict[str, Shape] = field(default_factory=dict)
    trainable: set[str] = field(default_factory=set)
    unseen: dict[tuple[str, str], None] = field(default_factory=dict)
    outputs: tuple[int, ...] = ()

    @property
    def parameters(self) -> int:
        """Entries of all parameters."""
        return sum(math.prod(self.weights[name]) for name in self.trainable)

    def readers(self) -> dict[int, list[int]]:
        """For each value the operations that read it."""
        found: dict[int, list[int]] = {value: [] for value in self.shapes}
        for i, operation in enumerate(self.operations):
            for value in dict.fromkeys(operation.inputs):
                found[value].append(i)
        return found

    def makers(self) -> dict[int, int]:
        """For each value the operation that made it."""
        return {value: i for i, op in enumerate(self.operations) for value in op.outputs}
