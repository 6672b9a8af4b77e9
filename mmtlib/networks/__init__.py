"""The re-ID networks, their convolutional parts, and weights that others saved."""

from mmtlib.networks.model import (
    NETWORK_NAMES,
    ReIDNetwork,
    build_network,
    load_authors_checkpoint,
    load_network,
    save_network,
)

__all__ = [
    "NETWORK_NAMES",
    "ReIDNetwork",
    "build_network",
    "load_authors_checkpoint",
    "load_network",
    "save_network",
]
