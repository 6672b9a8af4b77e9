"""The training baseline: an MMT step and its data as the authors' generation of re-ID code writes them.

float32, channels first, a JPEG opened and transformed image by image for each of the two views, a `DataLoader` with two
workers, one parameter group per tensor, a Python loop over parameters for the mean networks, `item()` after each step.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from mmtlib.batches import IMAGENET_MEAN, IMAGENET_STD


class PairDataset(Dataset):
    """Two views of each image file with its label, as the authors' preprocessor makes them."""

    def __init__(self, files: Sequence[Path], pids: Sequence[int], height: int, width: int) -> None:
        self.files, self.pids = files, pids
        self.transform = transforms.Compose(
            [
                transforms.Resize((height, width), interpolation=transforms.InterpolationMode.BICUBIC),
                transforms.RandomHorizontalFlip(p=0.5),
                transforms.Pad(10),
                transforms.RandomCrop((height, width)),
                transforms.ToTensor(),
                transforms.Normalize(mean=IMAGENET_MEAN, std=IMAGENET_STD),
                transforms.RandomErasing(p=0.5, scale=(0.02, 0.4), ratio=(0.3, 1 / 0.3), value=0),
            ]
        )

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, int]:
        image = Image.open(self.files[index]).convert("RGB")
        other = image.copy()
        return self.transform(image), self.transform(other), self.pids[index]


def endless_batches(dataset: PairDataset, batch: int, device: torch.device) -> Iterator[tuple[Tensor, ...]]:
    """Batches in file order (P identities × K images when the files are sorted so), again and again."""
    loader = DataLoader(dataset, batch_size=batch, num_workers=2, drop_last=True, pin_memory=device.type == "cuda")
    while True:
        for parts in loader:
            yield tuple(part.to(device) for part in parts)


def plain_adam(networks: Sequence[nn.Module]) -> torch.optim.Adam:
    """Adam with a parameter group for each tensor."""
    groups = [{"params": [p], "lr": 3.5e-4, "weight_decay": 5e-4} for n in networks for p in n.parameters()]
    return torch.optim.Adam([group for group in groups if group["params"][0].requires_grad])


def mean_networks(networks: Sequence[nn.Module]) -> list[nn.Module]:
    """Copies that take no gradient."""
    means = [copy.deepcopy(network) for network in networks]
    for mean in means:
        for parameter in mean.parameters():
            parameter.detach_()
    return means


def plain_step(
    networks: Sequence[nn.Module],
    means: Sequence[nn.Module],
    optimizer: torch.optim.Optimizer,
    views: Sequence[Tensor],
    pids: Tensor,
    step: int,
) -> dict[str, float]:
    """One MMT step of two networks with the published weights (0.5, 0.8) and α = 0.999.

    Returns:
        The parts and the loss, as `mmtlib.training.mmt_step` names them.
    """
    outputs = [network(view) for network, view in zip(networks, views)]
    taught = [mean(view) for mean, view in zip(means, views)][::-1]
    parts = dict.fromkeys(("hard_ce", "soft_ce", "hard_triplet", "soft_triplet"), 0)
    for (features, logits), (mean_features, mean_logits) in zip(outputs, taught):
        log_chances = nn.LogSoftmax(dim=1)(logits)
        wanted = torch.zeros_like(log_chances).scatter_(1, pids.unsqueeze(1), 1)
        wanted = 0.9 * wanted + 0.1 / logits.shape[1]
        parts["hard_ce"] += (-wanted * log_chances).mean(0).sum()
        parts["soft_ce"] += (-nn.functional.softmax(mean_logits, dim=1).detach() * log_chances).mean(0).sum()
        hard, soft = _triplets(features, mean_features, pids)
        parts["hard_triplet"] += hard
        parts["soft_triplet"] += soft
    loss = 0.5 * parts["hard_ce"] + 0.5 * parts["soft_ce"]
    loss = loss + 0.2 * parts["hard_triplet"] + 0.8 * parts["soft_triplet"]
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    alpha = min(1 - 1 / (step + 1), 0.999)
    for mean, network in zip(means, networks):
        for mean_parameter, parameter in zip(mean.parameters(), network.parameters()):
            mean_parameter.data.mul_(alpha).add_(parameter.data, alpha=1 - alpha)
    return {name: part.item() for name, part in (parts | {"loss": loss}).items()}


def _triplets(features: Tensor, mean_features: Tensor, pids: Tensor) -> tuple[Tensor, Tensor]:
    """Hard and soft softmax-triplet loss, the hardest pairs found by sorting all distances."""
    same = pids.expand(len(pids), len(pids)).eq(pids.expand(len(pids), len(pids)).t()).float()
    distances = _distances(features)
    positives = torch.sort(distances - 9999999.0 * (1 - same), dim=1, descending=True)[1][:, 0]
    negatives = torch.sort(distances + 9999999.0 * same, dim=1, descending=False)[1][:, 0]

    def log_shares(matrix: Tensor) -> Tensor:
        near = matrix.gather(1, positives.view(-1, 1))
        far = matrix.gather(1, negatives.view(-1, 1))
        return nn.functional.log_softmax(torch.cat((near, far), dim=1), dim=1)  # (B, 2)

    ours = log_shares(distances)
    target = log_shares(_distances(mean_features)).exp().detach()
    return -ours[:, 1].mean(), (-target * ours).mean(0).sum()


def _distances(features: Tensor) -> Tensor:
    count = features.size(0)
    squares = torch.pow(features, 2).sum(dim=1, keepdim=True).expand(count, count)
    return torch.addmm(squares + squares.t(), features, features.t(), alpha=-2).clamp(min=1e-12).sqrt()
