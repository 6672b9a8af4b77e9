"""The re-ID networks, their convolutional parts, and networks in files: ours, and weights that others saved."""

from mmtlib.networks.model import NETWORK_NAMES, ReIDNetwork, build_network
from mmtlib.networks.stored import (
    load_authors_checkpoint,
    load_network,
    open_network,
    save_network,
    settings_of,
    trained_as,
)
