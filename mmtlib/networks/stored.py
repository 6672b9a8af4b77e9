"""Networks in files: ours, with all that is needed to use them, and those that other programs saved."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch

from mmtlib import InputError
from mmtlib.config import Settings, make_settings
from mmtlib.files import read_json, write_atomic
from mmtlib.networks.model import NETWORK_NAMES, ReIDNetwork, build_network
from mmtlib.networks.weights import architecture, check_fit, is_safetensors, read_safetensors, read_state_dict

# No option changes these in a trained network.
_BUILT_IN = ("backbone", "stem_stride", "gain", "bn_group", "imagenet")


def save_network(network: ReIDNetwork, path: str | Path, trained: Mapping[str, Any] | None = None) -> Path:
    """Write a network's weights and how to build it as one safetensors file, atomically.

    `trained` is the configuration that it was trained with, a JSON value; it lies in the file's metadata.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    how = {"name": network.name, "num_classes": network.num_classes, "options": network.options}
    how |= {"trained": trained} if trained is not None else {}
    # One entry: the order of several is not the same each time.
    metadata = {"mmtlib_network": json.dumps(how)}
    return write_atomic(path, safetensors.torch.save(tensors, metadata=metadata))


def load_network(path: str | Path) -> ReIDNetwork:
    """Read a network that `save_network` wrote: on the CPU, in train mode."""
    state, metadata = read_safetensors(path)
    try:
        how = json.loads(metadata["mmtlib_network"])
        network = build_network(how["name"], how["num_classes"], **how["options"])
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{path} is not a network of save_network ({type(error).__name__}: {error}). Weights of other programs "
            "are read by open_network"
        ) from error
    check_fit(state, network.state_dict(), network.name, path)
    network.load_state_dict(state, strict=False)
    return network


def load_authors_checkpoint(path: str | Path, network: ReIDNetwork) -> dict[str, Any]:
    """Fill a network with weights that the authors' code saved, without executing anything in the file.

    Args:
        path: `model_best.pth.tar` or `checkpoint.pth.tar` of yxgeee/MMT, or a checkpoint of OpenUnReID or SpCL, whose
            ResNet-50 wants `build_network("resnet50", ..., stem_relu=True)`.
        network: Filled in place; its classifier is replaced by the checkpoint's, whatever its number of classes, and
            stays where the checkpoint has none. Left as it was when the checkpoint is refused.

    Returns:
        What the checkpoint says besides: `layout`, and for example `epoch` and `best_mAP`.
    """
    state, facts = read_state_dict(path)
    expected = network.state_dict()
    classifier = state.get("classifier.weight")
    if classifier is None:
        del expected["classifier.weight"]  # embeddings do without it
    elif classifier.ndim == 2 and classifier.shape[1] == network.num_features:
        expected["classifier.weight"] = classifier
    check_fit(state, expected, network.name, path)
    if facts["layout"] != "MMT" and network.name == "resnet50" and not network.options.get("stem_relu"):
        raise InputError(
            f"{path} is a ResNet-50 of {facts['layout']}, which has a ReLU after the stem's batch norm: "
            'build the network with build_network("resnet50", ..., stem_relu=True)'
        )
    if classifier is not None:
        network.set_classifier(classifier)
    network.load_state_dict(state, strict=False)  # all but step counters was checked above
    return facts


def open_network(path: str | Path, *, gain: float | None = None) -> ReIDNetwork:
    """A network from weights of any kind that this package reads, on the CPU, in eval mode.

    The architecture is seen from the file; `gain` is that of a foreign "small" network, whose weights do not hold its
    factor on the pooled feature.
    """
    if trained_as(path) is not None:
        return load_network(path).eval()
    state, facts = read_state_dict(path)
    name, options = architecture(state), {}
    if name not in NETWORK_NAMES:
        raise InputError(f"the weights in {path} are those of {name}: expected {', '.join(NETWORK_NAMES)}")
    if name != "small":
        options = {"stem_relu": facts["layout"] != "MMT" or None}
    elif (stem := state.get("base.0.weight")) is not None and stem.ndim == 4:
        options = {"width": stem.shape[0], "stem_stride": stem.shape[2] - 1, "gain": gain}
    network = build_network(name, 1, **options)
    load_authors_checkpoint(path, network)
    return network.eval()


def trained_as(path: str | Path) -> dict[str, Any] | None:
    """What a network was trained with, from its file or `config.json` beside it; None for weights of others."""
    metadata = read_safetensors(path)[1] if is_safetensors(path) else {}
    if "mmtlib_network" not in metadata:
        return None
    beside = Path(path).with_name("config.json")
    try:
        found = json.loads(metadata["mmtlib_network"]).get("trained")
        return dict(found or (read_json(beside) if beside.is_file() else {}))
    except (AttributeError, TypeError, ValueError) as error:
        where = f"it, or {beside}, is damaged"
        raise InputError(f"{path} does not say how it was trained ({error}): {where}") from error


def settings_of(
    path: str | Path, profile: str | None = None, overrides: Mapping[str, Any] | None = None
) -> tuple[Settings, list[str]]:
    """The settings under which a network file is used: those of its training, with `overrides` on top.

    A `profile` speaks for a file that does not know its training. Returned beside the settings is a line for everything
    asked for that contradicts the training.

    Raises:
        InputError: Nobody says how large images are; an override of what is built into the network.
    """
    overrides, trained = overrides or {}, trained_as(path)
    if not trained:
        if profile is None and not {"height", "width"} <= set(overrides):
            raise InputError(
                f"{path} does not say how its network is used: add the size of the images that it was trained on, "
                "--set height=256 --set width=128 for the authors', or a --profile"
            )
        return make_settings(profile or "quick", **overrides), []
    settings = Settings.of(trained)
    notes = [f"its own training is followed, not the profile {profile}"] if profile else []
    for name, value in overrides.items():
        if value != (before := getattr(settings, name)):
            if name in _BUILT_IN:
                raise InputError(f"{name} is {before} in {path}; {name}={value} cannot change that: leave it out")
            notes.append(f"trained with {name}={before}, used with {name}={value}")
    return settings.replace(**overrides), notes
