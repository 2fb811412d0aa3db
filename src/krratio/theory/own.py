"""Which tensors of a network vary."""

from torch import nn

from krratio.errors import UnsupportedModuleError
from krratio.networks.graph import Graph
from krratio.networks.layers import Placement

__all__ = ["own_parameters"]


def own_parameters(model: nn.Module, graph: Graph) -> set[int]:
    """Ids of the parameters that vary; refuse weights that are computed from them."""
    fixed = {id(b) for b in model.buffers()}
    fixed |= {id(p) for p in model.parameters() if not p.requires_grad}
    own = {id(p) for p in model.parameters() if p.requires_grad}
    for node, name, weight in graph.weights():
        if id(weight) not in own | fixed and not isinstance(node.layer, Placement):
            raise UnsupportedModuleError(
                f"the {name} of {node.name} is computed from other tensors (a parametrization, a "
                "slice, a transpose), so the dimension in the network's own parameters is not its "
                "rank; write the network with plain parameters"
            )
    return own
