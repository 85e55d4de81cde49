"""The networks: three backbones as `features` and `classifier`, and the model that is deployed.

Not for: training them (distill/).
"""

from dfd_tune.models.build import BACKBONES, HINT_LAYERS, build_network, layer_problem
from dfd_tune.models.network import Network

__all__ = ["BACKBONES", "HINT_LAYERS", "Network", "build_network", "layer_problem"]
