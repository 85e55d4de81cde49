"""The networks: three backbones as `features` and `classifier`, and the model that is deployed.

Not for: training them (distill/).
"""

from dfd_tune.models.build import BACKBONES, build_network
from dfd_tune.models.network import Network

__all__ = ["BACKBONES", "Network", "build_network"]
