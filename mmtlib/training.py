"""One step of training: Mutual Mean-Teaching with all its parts as switches, co-teaching, source pre-training."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmtlib import InputError
from mmtlib.config import Settings
from mmtlib.ema import update_mean_network
from mmtlib.epochs import not_finite
from mmtlib.losses import soft_cross_entropy, soft_softmax_triplet, softmax_triplet

PARTS = ("hard_ce", "hard_triplet", "soft_ce", "soft_triplet")


def mmt_step(
    networks: Sequence[nn.Module],
    means: Sequence[nn.Module],
    optimizer: torch.optim.Optimizer,
    views: Sequence[Tensor],
    pids: Tensor,
    *,
    soft_ce_weight: float,
    soft_tri_weight: float,
    alpha: float,
    step: int,
    teacher: str = "other mean",
    label_smoothing: float = 0.1,
    autocast: AbstractContextManager | None = None,
) -> dict[str, Tensor]:
    """One step of Mutual Mean-Teaching (paper, equations 5–9), or of a method that lacks some of its parts.

    Network i sees view i; its loss is (1 − w_ce) L_ce + w_ce L_soft-ce + (1 − w_tri) L_tri + w_tri L_soft-tri. The
    soft targets come from the other network's mean, which sees its own view; last, each mean moves to its network.

    Args:
        networks: One or two, in train mode: features (B, D) and logits (B, K) of a view.
        means: Their mean networks, in train mode too; may be empty if the teacher is no mean.
        optimizer: Over the parameters of all networks.
        views, pids: One augmented batch (B, 3, H, W) per network, of the same images; their labels (B), 0 … K − 1.
        soft_ce_weight, soft_tri_weight, label_smoothing: w_ce and w_tri in [0, 1]; ε of the hard classification loss.
        alpha, step: Momentum of the mean networks, and the steps taken before this one.
        teacher: "other mean" (MMT), "own mean" (mean teacher), "other network" (mutual learning) or "none".
        autocast: Context for the forward passes (mixed precision); the losses always run outside of it.

    Returns:
        hard_ce, hard_triplet, soft_ce, soft_triplet (sums over the networks), loss and accuracy, detached.

    Raises:
        FloatingPointError: The loss is not finite; no parameter was updated.
        InputError: A soft loss without a teacher, or a batch with one identity.

    Taught in: notebook 04.
    """
    with autocast or nullcontext():
        outputs = [network(view) for network, view in zip(networks, views, strict=True)]
        with torch.no_grad():  # also without a soft loss: their batch norms need the statistics
            mean_outputs = [mean(view) for mean, view in zip(means, views)]
    taught = _teachers(teacher, outputs, mean_outputs, needed=soft_ce_weight > 0 or soft_tri_weight > 0)
    parts = dict.fromkeys(PARTS, torch.zeros((), device=pids.device))
    for i, (f, z) in enumerate(outputs):
        if soft_ce_weight < 1:
            parts["hard_ce"] = parts["hard_ce"] + F.cross_entropy(z, pids, label_smoothing=label_smoothing)
        if soft_tri_weight < 1:
            parts["hard_triplet"] = parts["hard_triplet"] + softmax_triplet(f, pids)
        if soft_ce_weight > 0:
            parts["soft_ce"] = parts["soft_ce"] + soft_cross_entropy(z, taught[i][1])
        if soft_tri_weight > 0:
            parts["soft_triplet"] = parts["soft_triplet"] + soft_softmax_triplet(f, taught[i][0], pids)
    loss = (1 - soft_ce_weight) * parts["hard_ce"] + soft_ce_weight * parts["soft_ce"]
    loss = loss + (1 - soft_tri_weight) * parts["hard_triplet"] + soft_tri_weight * parts["soft_triplet"]
    descend(optimizer, loss, parts, [*networks, *means], views)
    for mean, network in zip(means, networks):
        update_mean_network(mean, network, alpha, step)
    return _record(parts, loss, [z for _, z in outputs], pids)


def _teachers(teacher: str, outputs: list, mean_outputs: list, *, needed: bool) -> list:
    """For each network the features and logits that teach it; refused where soft losses need what is not there."""
    taught = outputs if teacher == "other network" else mean_outputs
    if needed and len(taught) < len(outputs):
        raise InputError(f"{len(outputs)} networks have {len(taught)} teachers: pass a mean network for each")
    return taught[::-1] if teacher.startswith("other") else taught


def co_teaching_step(
    networks: Sequence[nn.Module],
    optimizer: torch.optim.Optimizer,
    views: Sequence[Tensor],
    pids: Tensor,
    *,
    keep: float,
    label_smoothing: float = 0.1,
    autocast: AbstractContextManager | None = None,
) -> dict[str, Tensor]:
    """One step of co-teaching (Han et al. 2018): each network learns from what the *other* one finds easy.

    Args:
        networks, optimizer, views, pids, label_smoothing, autocast: As in `mmt_step`; two networks.
        keep: Share of the batch with the smallest classification loss that is passed on, in (0, 1].

    Returns:
        The parts, as `mmt_step` names them.

    Raises:
        FloatingPointError: The loss is not finite; nothing was updated.

    Differs from: Han et al. have no metric loss; here the kept images also enter the softmax-triplet loss, as in
    every other row of the table. Where fewer than two identities are kept, that part is 0.
    Taught in: notebook 05.
    """
    with autocast or nullcontext():
        outputs = [network(view) for network, view in zip(networks, views, strict=True)]
    losses = [F.cross_entropy(z, pids, label_smoothing=label_smoothing, reduction="none") for _, z in outputs]
    count = max(1, round(keep * len(pids)))
    zero = torch.zeros((), device=pids.device)
    parts = {"hard_ce": zero, "hard_triplet": zero}
    for i, (features, _) in enumerate(outputs):
        easy = losses[1 - i].detach().topk(count, largest=False).indices
        parts["hard_ce"] = parts["hard_ce"] + losses[i][easy].mean()
        if len(pids[easy].unique()) > 1:
            parts["hard_triplet"] = parts["hard_triplet"] + softmax_triplet(features[easy], pids[easy])
    loss = parts["hard_ce"] + parts["hard_triplet"]
    descend(optimizer, loss, parts, networks, views)
    return _record(parts | {"soft_ce": zero, "soft_triplet": zero}, loss, [z for _, z in outputs], pids)


def source_step(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    source: Tensor,
    pids: Tensor,
    target: Tensor,
    *,
    label_smoothing: float = 0.1,
    autocast: AbstractContextManager | None = None,
) -> dict[str, Tensor]:
    """One step of source pre-training: classification and softmax-triplet loss on the source batch.

    The target batch goes forward through the same network in train mode and moves its batch-norm statistics;
    no loss is taken on it.

    Args:
        network: In train mode.
        optimizer: Over its parameters.
        source: Augmented source images (B, 3, H, W).
        pids: Their identities (B), 0 … K − 1.
        target: Augmented target images (B', 3, H, W).
        label_smoothing, autocast: As in `mmt_step`.

    Returns:
        loss, hard_ce, hard_triplet, accuracy, detached.

    Raises:
        FloatingPointError: The loss is not finite; nothing was updated.

    Taught in: notebook 01.
    """
    with autocast or nullcontext():
        features, logits = network(source)
        with torch.no_grad():
            network(target)
    parts = {"hard_ce": F.cross_entropy(logits, pids, label_smoothing=label_smoothing)}
    parts["hard_triplet"] = softmax_triplet(features, pids)
    loss = parts["hard_ce"] + parts["hard_triplet"]
    descend(optimizer, loss, parts, [network], [source])
    return _record(parts, loss, [logits], pids)


def descend(
    optimizer: torch.optim.Optimizer,
    loss: Tensor,
    parts: dict[str, Tensor],
    networks: Sequence[nn.Module] = (),
    views: Sequence[Tensor] = (),
) -> None:
    """One optimiser step on `loss`, refused where the loss is not finite (nothing is changed then).

    Args:
        optimizer, loss, parts: What to step with, what to lower, and what it consists of.
        networks, views: Where to look for the cause of a loss that is not finite.

    Raises:
        FloatingPointError: Names the parts and their values, and the first weight or image that was not finite before.
    """
    if not torch.isfinite(loss):
        values = ", ".join(f"{name} = {float(part.detach()):g}" for name, part in parts.items())
        state = {f"image of view {i}": view for i, view in enumerate(views, 1)}
        state |= {f"network {i}": dict(each.named_parameters()) for i, each in enumerate(networks, 1)}
        if cause := next(not_finite(state), None):
            values += f"; not finite before this step: {cause}"
        raise FloatingPointError(
            f"the loss is not finite ({values}): lower the learning rate, or set precision=float32; "
            "the last checkpoint is whole, so the run goes on from there"
        )
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()


def _record(parts: dict[str, Tensor], loss: Tensor, logits: list[Tensor], pids: Tensor) -> dict[str, Tensor]:
    """What a step returns: its parts, the loss, and the share of the batch that is labelled as given; detached."""
    accuracy = torch.stack([(z.argmax(1) == pids).float().mean() for z in logits]).mean()
    return {name: part.detach() for name, part in (parts | {"loss": loss, "accuracy": accuracy}).items()}


def learning_rate(settings: Settings, epoch: int) -> float:
    """Learning rate of a source epoch (from 0): linear warm-up from 1 %, then a tenth at each milestone.

    The authors' scheduler advances before an epoch, so epoch 0 has taken the first step already.
    """
    decay = 0.1 ** sum(epoch + 1 >= milestone for milestone in settings.source_milestones)
    ramp = min(1.0, (epoch + 1) / settings.source_warmup) if settings.source_warmup else 1.0
    return settings.source_lr * decay * (0.01 + 0.99 * ramp)
