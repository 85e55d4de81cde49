"""The networks: backbones as `features` and `classifier`, and the model that is deployed.

Not for: training them (distill/).
"""

from dfd_tune.backbones import BACKBONES
from dfd_tune.models.build import HINT_LAYERS, build_network, layer_problem, network_problem
from dfd_tune.models.network import Network

__all__ = ["BACKBONES", "HINT_LAYERS", "Network", "build_network", "layer_problem", "network_problem"]
