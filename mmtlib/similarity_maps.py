"""Where two images are alike in a network's eyes: each place's part in the similarity of their embeddings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mmtlib import InputError
from mmtlib.batches import normalise
from mmtlib.config import Settings
from mmtlib.data.tasks import load_masks, load_task, open_dataset
from mmtlib.distances import repeatable_convolutions
from mmtlib.networks import ReIDNetwork


@torch.no_grad()
@repeatable_convolutions()
def similarity_maps(network: ReIDNetwork, queries: Tensor, answers: Tensor, batch: int = 256) -> tuple[Tensor, Tensor]:
    """How much each place of two images has to do with the cosine similarity of their embeddings.

    Stylianou, Souvenir, Pless 2019, "Visualizing deep similarity networks" (WACV): average pooling and the batch-norm
    neck are affine, so the similarity is a sum over the positions of the last maps. Up to the neck's constant, which
    all positions share, a term is Grad-CAM's gradient times activation (Selvaraju et al. 2017), the embeddings' lengths
    held: the whole cosine's gradient vanishes where two embeddings agree. As there, only what speaks *for* the
    similarity is kept, and enlarged to the image. A position sees far more than its place: a map says where the
    evidence arrives, not which pixels it came from. Taught in lesson 04.

    Args:
        network: Left in the mode in which it came.
        queries, answers: Pairs of images, uint8, (B, 3, H, W), on the network's device; one query may stand for all.
        batch: Pairs per forward pass; no result depends on it.

    Returns:
        Maps of queries and of answers, each (B, H, W), float32, at least 0 and of sum 1 (flat where nothing speaks for
        the similarity).
    """
    if queries.shape[1:] != answers.shape[1:] or len(queries) not in (1, len(answers)) or not len(answers):
        raise InputError(
            f"queries are {tuple(queries.shape)} and answers {tuple(answers.shape)}: expected pairs of images of one "
            "size, uint8 (B, 3, H, W), or one query for all answers"
        )
    training, size = network.training, queries.shape[2:]
    network.eval()
    made = []
    for pair in zip(queries.expand(len(answers), -1, -1, -1).split(batch), answers.split(batch)):
        maps = [network.base(normalise(images)).float() for images in pair]  # two of (B, D, h, w)
        wholes = [network.pool_and_neck(each)[1] for each in maps]  # two of (B, D), not of unit length
        made.append([_enlarged(_terms(network, *each), size) for each in zip(maps, wholes, wholes[::-1])])
    network.train(training)
    return tuple(torch.cat(side) for side in zip(*made))


def _terms(network: ReIDNetwork, maps: Tensor, own: Tensor, other: Tensor) -> Tensor:
    """Each position's term (B, h, w) of the cosine similarity of two embeddings, `own` being that of the maps."""
    each = maps.permute(0, 2, 3, 1).flatten(0, 2)[:, :, None, None]  # positions as images of one: (B h w, D, 1, 1)
    neck = network.pool_and_neck(each)[1].unflatten(0, (len(maps), -1))  # (B, h w, D)
    lengths = own.norm(dim=1) * other.norm(dim=1)
    terms = torch.einsum("bpd,bd->bp", neck, other) / (lengths[:, None].clamp(min=1e-12) * neck.shape[1])
    return terms.unflatten(1, maps.shape[2:])


def _enlarged(terms: Tensor, size: tuple[int, int]) -> Tensor:
    """Maps (B, H, W) of what is positive in terms (B, h, w), each of sum 1."""
    large = F.interpolate(terms.relu()[:, None], size, mode="bilinear", align_corners=False)[:, 0]
    total = large.sum((1, 2), keepdim=True)
    return torch.where(total > 0, large / total.clamp(min=1e-30), 1 / (size[0] * size[1]))


@dataclass(frozen=True)
class Pairs:
    """Pairs of drawn pictures, each of one person under two cameras, and what their pixels show."""

    queries: Tensor  # uint8, (B, 3, H, W), as `answers`
    answers: Tensor
    masks: tuple[dict[str, np.ndarray], ...]  # of queries and answers, as `load_masks` gives them

    @property
    def area(self) -> dict[str, float]:
        """Each mask's share of the images: the attention that it would get by chance."""
        return {name: float(np.mean([side[name].mean() for side in self.masks])) for name in self.masks[0]}


def right_pairs(settings: Settings, most: int | None = None) -> Pairs:
    """Test queries of an embedded target, each with a right answer of another camera; the same for every network.

    `most`: how many pairs, drawn at random; None: one of each query that has an answer.
    """
    task, dataset, rng = (
        load_task(settings),
        open_dataset(settings.target, settings),
        np.random.default_rng(0),
    )
    right = (task.query.pids[:, None] == task.gallery.pids) & (task.query.camids[:, None] != task.gallery.camids)
    rows = np.flatnonzero(right.any(axis=1))
    rows = np.sort(rng.permutation(rows)[:most])
    columns = np.where(right[rows], rng.random((len(rows), right.shape[1])), -1).argmax(axis=1)
    sides = ((task.query, dataset.query, rows), (task.gallery, dataset.gallery, columns))
    images = [part.images[torch.from_numpy(chosen).to(part.images.device)] for part, _, chosen in sides]
    masks = [load_masks(settings.target, settings, [split.paths[i] for i in chosen]) for _, split, chosen in sides]
    return Pairs(*images, tuple(masks))


def attention(maps: Sequence[Tensor], masks: Sequence[Mapping[str, np.ndarray]]) -> dict[str, float]:
    """The share of maps (B, H, W) of queries and answers that lies on what each mask shows, 0 to 1, in the mean."""
    found = [side.cpu().numpy() for side in maps]
    return {
        name: float(np.mean([(m * side[name]).sum(axis=(1, 2)).mean() for m, side in zip(found, masks)]))
        for name in masks[0]
    }
