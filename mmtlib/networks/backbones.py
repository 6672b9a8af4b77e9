"""The convolutional part of the networks, and batch norms over groups of images.

`small_base` is the laptop's ResNet; `resnet50_base` builds the authors' ResNet-50 and IBN-ResNet-50 (a) from
torchvision's. Layers are numbered as in the authors' state dicts, so that their checkpoints load. torchvision is
imported for the ResNet-50s alone: it takes longer than all the rest that a small run needs.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmtlib import InputError


class GroupBatchNorm(nn.BatchNorm2d):
    """Batch norm whose training statistics come from groups of `group` consecutive images.

    The authors train 64 images on four GPUs with `DataParallel`, so each of their batch norms sees 16 images,
    and only the first replica's running statistics survive. Groups of 16 do the same on one device.
    """

    def __init__(self, num_features: int, group: int) -> None:
        super().__init__(num_features)
        self.group = group

    def forward(self, input: Tensor) -> Tensor:
        """Normalise `input` (B, C, H, W) or (B, C); in training, B is a multiple of the group."""
        if not self.training:
            stored = self.running_mean, self.running_var, self.weight, self.bias
            return F.batch_norm(input, *stored, eps=self.eps)
        if len(input) % self.group:
            raise InputError(
                f"a training batch of {len(input)} images cannot be split into batch-norm groups of {self.group}: "
                f"choose a multiple of {self.group} as batch size, or set bn_group to a divisor of it or to None"
            )
        self.num_batches_tracked.add_(1)
        # A launch a group, which a replayed CUDA graph does not wait for. Groups as channels of one batch norm, or
        # `var_mean` over each, take two to three times as long, and the latter keeps twice the memory.
        first, *others = input.split(self.group)
        how = self.weight, self.bias, True, self.momentum, self.eps
        outputs = [F.batch_norm(first, self.running_mean, self.running_var, *how)]
        return torch.cat(outputs + [F.batch_norm(chunk, None, None, *how) for chunk in others])


class InstanceBatchNorm(nn.Module):
    """IBN-a (Pan et al. 2018): instance norm on the first half of the channels, batch norm on the rest."""

    def __init__(self, channels: int, norm_layer: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.half = channels // 2
        self.IN = nn.InstanceNorm2d(self.half, affine=True)
        self.BN = norm_layer(channels - self.half)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise `x` (B, C, H, W)."""
        return torch.cat([self.IN(x[:, : self.half]), self.BN(x[:, self.half :])], dim=1)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut (He et al. 2016), as torchvision's `BasicBlock`, name by name."""

    def __init__(self, channels: int, planes: int, stride: int, norm_layer: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, planes, 3, stride=stride, padding=1, bias=False)
        self.bn1 = norm_layer(planes)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(planes, planes, 3, padding=1, bias=False)
        self.bn2 = norm_layer(planes)
        self.downsample = None
        if planes != channels:
            shortcut = nn.Conv2d(channels, planes, 1, stride=stride, bias=False)
            self.downsample = nn.Sequential(shortcut, norm_layer(planes))

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, planes, H', W') of `x` (B, channels, H, W)."""
        kept = x if self.downsample is None else self.downsample(x)
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return self.relu(out.add_(kept))


def small_base(width: int, stem_stride: int, norm_layer: Callable[[int], nn.Module]) -> nn.Sequential:
    """The four-block ResNet of `width` to 8 * `width` channels; its last stage has stride 1, as the authors' has.

    A stem of stride 2 is 3x3, and the second block halves the maps; one of stride 4 is 5x5, and the second block
    does not. Either way 64x32 images end as 8x4 maps.
    """
    stem = nn.Conv2d(3, width, stem_stride + 1, stride=stem_stride, padding=stem_stride // 2, bias=False)
    layers: list[nn.Module] = [stem, norm_layer(width), nn.ReLU(inplace=True)]
    channels = width
    for planes, stride in ((width, 1), (2 * width, 4 // stem_stride), (4 * width, 2), (8 * width, 1)):
        layers.append(BasicBlock(channels, planes, stride, norm_layer))
        channels = planes
    return nn.Sequential(*layers)


def resnet50_base(ibn: bool, stem_relu: bool | None, norm_layer: Callable[[int], nn.Module]) -> nn.Sequential:
    """torchvision's ResNet-50 up to its last maps, with the last stage at stride 1, in the authors' numbering."""
    from torchvision.models import resnet50

    resnet = resnet50(weights=None, norm_layer=norm_layer)
    resnet.layer4[0].conv2.stride = (1, 1)
    resnet.layer4[0].downsample[0].stride = (1, 1)
    relu, pool = resnet.relu, resnet.maxpool
    if ibn:
        for block in (*resnet.layer1, *resnet.layer2, *resnet.layer3):
            block.bn1 = InstanceBatchNorm(block.conv1.out_channels, norm_layer)
        stem = [relu if stem_relu in (None, True) else nn.Identity(), pool]
    else:  # one module fewer: the numbers in the state dict depend on it
        stem = [nn.Sequential(relu, pool) if stem_relu else pool]
    stages = (resnet.layer1, resnet.layer2, resnet.layer3, resnet.layer4)
    return nn.Sequential(resnet.conv1, resnet.bn1, *stem, *stages)
