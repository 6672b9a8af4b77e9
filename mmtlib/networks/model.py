"""The re-ID networks: a small ResNet for laptops, and the authors' ResNet-50 and IBN-ResNet-50 (a).

All share one form: convolutions, global average pooling (times a constant gain), a batch-norm neck whose
bias stays 0, and a bias-free classifier. In train mode a network returns the pooled features (the triplet losses read
them) and the logits; in eval mode the L2-normalised batch-normed feature, which is the embedding that is
clustered and searched.
"""

from functools import partial
from math import inf
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmtlib import InputError
from mmtlib.networks.backbones import GroupBatchNorm, resnet50_base, small_base
from mmtlib.networks.weights import check_fit, imagenet_file, read_state_dict

NETWORK_NAMES = ("small", "resnet50", "ibn-resnet50")


class ReIDNetwork(nn.Module):
    """Convolutions, pooling, batch-norm neck and classifier; build one with `build_network`.

    `name` and `options` say how it was built (and are kept in saved files); `num_features` is D, the length of
    features and embeddings.
    """

    def __init__(self, name: str, options: dict[str, Any], base: nn.Module, neck: nn.Module, num_classes: int) -> None:
        super().__init__()
        self.name, self.options = name, options
        self.num_features, self.gain = neck.num_features, options["gain"]
        self.base = base
        self.feat_bn = neck
        self.feat_bn.bias.requires_grad_(False)
        self.classifier = nn.Linear(self.num_features, num_classes, bias=False)

    @property
    def num_classes(self) -> int:
        """K, the number of rows of the classifier."""
        return self.classifier.out_features

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Embed normalised images (B, 3, H, W).

        In train mode `(features (B, D), logits (B, K))`, the features before the batch norm; in eval mode the embedding
        (B, D) with unit rows.
        """
        features, neck = self.pooled_and_neck(images)
        if not self.training:
            return F.normalize(neck)
        with torch.autocast(neck.device.type, enabled=False):
            return features, self.classifier(neck)

    def pooled_and_neck(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The features (B, D) before and after the batch-norm neck; `images` and errors as in `forward`."""
        if images.ndim != 4 or images.shape[1] != 3 or min(images.shape[2:]) < 1:
            raise InputError(f"images have shape {tuple(images.shape)}, expected (B, 3, H, W) with pixels")
        if self.training and len(images) < 2:
            raise InputError(f"a batch of {len(images)} image(s): batch norm in training needs at least 2")
        return self.pool_and_neck(self.base(images))

    def pool_and_neck(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        """What follows the convolutions: the features (B, D) of their maps (B, D, h, w) before and after the neck."""
        # From here on in float32 whatever autocast does: half-precision distances lose the triplets.
        with torch.autocast(maps.device.type, enabled=False):
            # A sum over positions, not maps.mean((2, 3)), whose gradient loses the channels-last layout (slower).
            positions = maps.permute(0, 2, 3, 1).flatten(1, 2)  # (B, h * w, D)
            total = positions.sum(dim=1, dtype=torch.promote_types(maps.dtype, torch.float32))  # (B, D)
            features = total * (self.gain / positions.shape[1])
            return features, self.feat_bn(features)

    def set_classifier(self, weight: Tensor) -> None:
        """Replace the classifier by a copy of `weight` (K, D), a parameter that is unknown to existing optimisers."""
        if weight.ndim != 2 or weight.shape[1] != self.num_features or weight.shape[0] < 1:
            raise InputError(
                f"classifier weights have shape {tuple(weight.shape)}, expected (K, {self.num_features}): "
                "one row per class, in the feature space of this network"
            )
        old = self.classifier.weight
        new = weight.detach().to(device=old.device, dtype=old.dtype, copy=True)
        self.classifier = nn.Linear(self.num_features, len(weight), bias=False, device="meta")
        self.classifier.weight = nn.Parameter(new.contiguous())


def build_network(
    name: str,
    num_classes: int,
    *,
    seed: int = 0,
    gain: float | None = None,
    width: int = 16,
    stem_stride: int = 2,
    stem_relu: bool | None = None,
    bn_group: int | None = None,
    imagenet: str | Path | None = None,
) -> ReIDNetwork:
    """Build a re-ID network with weights that follow from `seed` alone (the global random state is left as it was).

    Args:
        name: "small" (4 basic blocks, 0.33 M parameters, D = 8 * width), "resnet50" or "ibn-resnet50" (D = 2048).
        num_classes: K of the classifier, at least 1.
        gain: Constant factor on the pooled feature; None: 3 for "small", whose 128-d distances would else be too
            short for the softmax-triplet, and 1 for the others, as published.
        width: Channels of the first stage of "small".
        stem_stride: 2 or 4, of "small" alone; 4 takes three quarters of the time and sees less fine detail.
        stem_relu: ReLU between the stem's batch norm and its max-pool; None: as the authors have it, which is none in
            "resnet50" and one in "ibn-resnet50".
        bn_group: Images per batch-norm group in training (16 = the authors' four GPUs); None: the whole batch.
        imagenet: A file of ImageNet weights, or "cache" for torchvision's cached file; None: random weights.

    Returns:
        The network, on the CPU, float32, in train mode.
    """
    if name not in NETWORK_NAMES:
        raise InputError(f"unknown network {name!r}: choose one of {', '.join(NETWORK_NAMES)}")
    for option, value, fits, need in (
        ("num_classes", num_classes, num_classes >= 1, "a classifier needs at least 1 class"),
        ("bn_group", bn_group, not bn_group or bn_group >= 2, "batch norm needs at least 2 images, or None"),
        ("width", width, width >= 1, "the first stage needs at least 1 channel"),
        ("stem_stride", stem_stride, stem_stride in (2, 4), "the first convolution has stride 2 or 4"),
        ("gain", gain, gain is None or 0 < gain < inf, "the pooled feature needs a positive factor"),
    ):
        if not fits:
            raise InputError(f"{option} is {value}: {need}")
    small = name == "small"
    options: dict[str, Any] = {"gain": gain or (3.0 if small else 1.0), "bn_group": bn_group}
    options |= {"width": width, "stem_stride": stem_stride} if small else {"stem_relu": stem_relu}
    norm2d = partial(GroupBatchNorm, group=bn_group) if bn_group else nn.BatchNorm2d
    norm1d = norm2d if bn_group else nn.BatchNorm1d
    with torch.device("meta"):  # constructors would draw from the global generator, and take their time
        if small:
            base, neck = small_base(width, stem_stride, norm2d), norm1d(8 * width)
        else:
            base, neck = resnet50_base(name == "ibn-resnet50", stem_relu, norm2d), norm1d(2048)
        network = ReIDNetwork(name, options, base, neck, num_classes)
    network.to_empty(device="cpu")
    _initialise(network, torch.Generator().manual_seed(seed))
    if imagenet:
        path = imagenet_file(name, imagenet)
        state = {n: t for n, t in read_state_dict(path)[0].items() if not n.startswith("fc.")}
        check_fit(state, {f"base.{n}": t for n, t in base.state_dict().items()}, name, path)
        network.load_state_dict(state, strict=False)  # the neck and the classifier keep their own
    return network.to(memory_format=torch.channels_last)


def _initialise(network: nn.Module, generator: torch.Generator) -> None:
    """He-normal convolutions, batch norms at identity, a near-zero classifier, as in the authors' code."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu", generator=generator)
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.001, generator=generator)
        elif isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d, nn.InstanceNorm2d)):
            module.reset_parameters()
