"""From decoded images to training batches: draw identities, augment whole batches as tensors.

Random draws depend on the generators passed in only, never on the number of threads or on the device.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mmtlib import InputError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def identity_batches(pids: np.ndarray, camids: np.ndarray, iterations: int, num_ids: int, num_instances: int,
                     rng: np.random.Generator) -> np.ndarray:  # fmt: skip
    """Draw training batches of `num_ids` identities (P) with `num_instances` images each (K).

    Identities come in random order, all of them before any comes again, and never twice in a batch (if there are fewer
    than P, each batch holds all and repeats some). Of an identity, one image is drawn at random; the others come from
    other cameras where it has any, else from the same; few images are repeated equally often.

    Args:
        pids, camids: labels and cameras (N); images with a negative label (noise, junk) are left out.

    Returns:
        Indices into `pids` (iterations, P * K), int64; the K images of an identity lie side by side.

    Differs from: the authors' RandomMultipleGallerySampler draws the others with replacement when they are few, and
        gives an identity with a single image one row instead of K; an unfilled last batch is dropped there and filled
        from the next pass here.
    """
    pids, camids = (np.asarray(x.tolist() if isinstance(x, Tensor) else x) for x in (pids, camids))
    if pids.shape != camids.shape or pids.ndim != 1:
        raise InputError(f"pids {pids.shape} and camids {camids.shape} must be two lists of the same length.")
    if len(pids) and not all(x.dtype.kind in "iu" for x in (pids, camids)):
        raise InputError(f"pids are {pids.dtype} and camids {camids.dtype}, expected whole numbers.")
    if min(iterations + 1, num_ids, num_instances) < 1:
        raise InputError(f"{iterations} batches, {num_ids} x {num_instances} images: all must be at least 1.")
    order = np.lexsort((camids, pids))  # by identity, then by camera
    order = order[pids[order] >= 0] if len(pids) else order  # an empty array may be of any type
    if len(order) == 0:
        raise InputError(f"None of {len(pids)} images has a label (pid 0 or above): nothing to draw.")
    _, first, count = np.unique(pids[order], return_index=True, return_counts=True)
    drawn = _identity_order(len(first), iterations, num_ids, rng)
    first, count = first[drawn], count[drawn]

    # The anchor's camera is one run in `order`: the candidates are its identity's images without that run.
    change = (np.diff(pids[order]) != 0) | (np.diff(camids[order]) != 0)
    run_start = np.append(0, np.flatnonzero(change) + 1)
    run_length = np.diff(np.append(run_start, len(order)))
    run = np.append(0, np.cumsum(change))
    anchor = first + (rng.random(len(first)) * count).astype(np.int64)
    gap_start, gap = run_start[run[anchor]], run_length[run[anchor]]
    alone = gap == count  # one camera only: leave out nothing but the anchor, and not even that if it is all
    gap_start = np.where(alone, anchor, gap_start)
    gap = np.where(alone, np.minimum(count - 1, 1), gap)
    candidates = count - gap

    chosen = _distinct(candidates, num_instances - 1, rng)  # (iterations * P, K - 1)
    others = first[:, None] + chosen
    others += np.where(others >= gap_start[:, None], gap[:, None], 0)
    rows = np.concatenate((anchor[:, None], others), 1)
    return order[rows].reshape(iterations, num_ids * num_instances)


def _identity_order(identities: int, iterations: int, num_ids: int, rng: np.random.Generator) -> np.ndarray:
    """Numbers of identities (iterations * P): permutation after permutation, distinct within each batch."""
    total = iterations * num_ids
    if identities < num_ids:
        times = -(-num_ids // identities)
        passes = rng.permuted(np.tile(np.arange(identities), (iterations * times, 1)), axis=1)
        return passes.reshape(iterations, times * identities)[:, :num_ids].reshape(-1)
    parts, filled = [np.empty(0, np.int64)], 0
    while filled < total:
        following = rng.permutation(identities)
        open_batch = parts[-1][len(parts[-1]) - filled % num_ids :]
        if len(open_batch):  # who is in the open batch already must wait until it is full
            fresh = np.flatnonzero(~np.isin(following, open_batch))[: num_ids - len(open_batch)]
            following = np.concatenate((following[fresh], np.delete(following, fresh)))
        parts.append(following)
        filled += identities
    return np.concatenate(parts)[:total]


def _distinct(sizes: np.ndarray, draws: int, rng: np.random.Generator) -> np.ndarray:
    """For each size n, `draws` numbers below n, distinct as far as n reaches, then the same again."""
    picks = np.empty((len(sizes), draws), np.int64)
    for step in range(draws):
        left = np.maximum(sizes - step, 1)
        pick = (rng.random(len(sizes)) * left).astype(np.int64)
        for earlier in np.sort(picks[:, :step], 1).T:  # the pick-th of the numbers not taken yet
            pick += pick >= earlier
        again = np.arange(len(sizes)), np.minimum(step % sizes, max(step - 1, 0))
        picks[:, step] = np.where(step < sizes, pick, picks[again])
    return picks


def normalise(images: Tensor) -> Tensor:
    """Images (B, 3, H, W), uint8, as networks trained on ImageNet expect them: (images / 255 - mean) / std, float32."""
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
        raise InputError(f"Images are {images.dtype} {tuple(images.shape)}, expected uint8 (B, 3, H, W).")
    colours = torch.tensor((IMAGENET_MEAN, IMAGENET_STD), device=images.device)
    mean, std = colours.view(2, 1, 3, 1, 1)
    return images.float().mul_(1 / (255 * std)).sub_(mean / std)


def augment(
    images: Tensor, generator: torch.Generator, *, flip: bool = True, padding: int = 10, erasing: float = 0.5
) -> Tensor:
    """One random view of each image: flip half of them, pad and crop, normalise, erase.

    Erasing (Zhong et al. 2020) replaces a rectangle of 2-40 % of the area and aspect 0.3-3.33 by the ImageNet mean,
    which is 0 once normalised.

    Args:
        images: (B, 3, H, W), uint8, on any device; the views are float32 and on the same.
        generator: CPU generator; advances by the same number of draws whatever is switched on.
        padding: black pixels added on each side before a crop of the old size.
        erasing: probability that an image loses a rectangle.

    Differs from: the authors' code tries up to 100 rectangles for an image; we draw 20 at once and take the first that
        fits. Only a rounded area within 2-40 % fits.
    """
    if padding < 0 or not 0 <= erasing <= 1:
        raise InputError(f"padding {padding} must be 0 or more, and erasing {erasing} a probability.")
    batch, _, height, width = images.shape
    device = images.device
    chance = torch.rand(4, batch, generator=generator)
    mirrored = chance[0] < 0.5
    top, left = (chance[1:3] * (2 * padding + 1)).long()
    boxes = _erasing_boxes(batch, height, width, generator)
    boxes[:, chance[3] >= erasing] = 0

    if flip:
        images = torch.where(mirrored.to(device).view(-1, 1, 1, 1), images.flip(3), images)
    if padding:
        padded = F.pad(images, (padding,) * 4)
        windows = padded.unfold(2, height, 1).unfold(3, width, 1)  # a view (B, 3, 2p+1, 2p+1, H, W)
        images = windows[torch.arange(batch, device=device), :, top.to(device), left.to(device)]
    views = normalise(images)
    if erasing:
        y0, y1, x0, x1 = boxes.to(device)[..., None]  # (B, 1) each
        rows, columns = torch.arange(height, device=device), torch.arange(width, device=device)
        rows, columns = (rows >= y0) & (rows < y1), (columns >= x0) & (columns < x1)  # (B, H), (B, W)
        views *= (~(rows[:, None, :, None] & columns[:, None, None])).float()  # faster than masked_fill_
    return views


def augmented_views(
    images: Tensor, rows: Tensor, count: int, generator: torch.Generator, **look: Any
) -> Iterator[list[Tensor]]:
    """`count` independent views (B, 3, H, W) by `augment`, channels last, of each batch of images `rows` (steps, B).

    Eight batches are augmented at once, since a GPU waits for launches most.
    """
    for block in rows.split(8):
        chosen = images[block.flatten()]
        views = [augment(chosen, generator, **look) for _ in range(count)]
        views = [v.contiguous(memory_format=torch.channels_last).unflatten(0, block.shape) for v in views]
        yield from (list(step) for step in zip(*views))


def _erasing_boxes(batch: int, height: int, width: int, rng: torch.Generator, tries: int = 20) -> Tensor:
    """Rectangles (4, B) as y0, y1, x0, x1; empty where none of the tries fits into the image."""
    draw = torch.rand(4, batch, tries, generator=rng, dtype=torch.float64)
    area = (0.02 + 0.38 * draw[0]) * height * width
    aspect = 0.3 + (1 / 0.3 - 0.3) * draw[1]
    h, w = (area * aspect).sqrt().round(), (area / aspect).sqrt().round()
    share = h * w / (height * width)
    fits = (h > 0) & (w > 0) & (h < height) & (w < width) & (share >= 0.02) & (share <= 0.4)
    choice = fits.long().argmax(1, keepdim=True)  # the first that fits
    h, w, y, x, fits = (t.gather(1, choice)[:, 0] for t in (h, w, draw[2], draw[3], fits))
    y0, x0 = (y * (height - h + 1)).floor(), (x * (width - w + 1)).floor()
    return torch.stack((y0, y0 + h, x0, x0 + w)).mul_(fits).long()
