"""The two loops: source pre-training and adaptation, as generators of epochs; saving and timing lie around them.

Every random draw comes from a stream that is named by (seed, stage, epoch): an epoch that is begun again, after
a crash or in another process, draws the same numbers, and a checkpoint needs no generator state.
"""

import copy
import math
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from mmtlib import InputError, clustering
from mmtlib.batches import augmented_views, identity_batches
from mmtlib.config import METHODS, Settings
from mmtlib.data.tasks import Images, Task
from mmtlib.evaluation import autocast, camera_normalised, embeddings, measure_labels, numbered, score
from mmtlib.jaccard import jaccard_similarity
from mmtlib.networks import build_network
from mmtlib.noise import measures
from mmtlib.training import adam, cluster_contrast_step, co_teaching_step, mmt_step, source_step, take_steps

Timed = Callable[[str], AbstractContextManager]  # told which stage of an epoch runs inside


class Epoch(NamedTuple):
    """What an epoch leaves."""

    number: int  # from 1; 0: nothing was trained
    networks: list[nn.Module]  # to be used: the mean networks where there are any
    state: dict[str, Any]  # all that is needed to go on after it
    record: dict[str, Any]  # losses, measures and scores; empty for the epoch that a loop went on from
    arrays: dict[str, np.ndarray] = {}  # labels (N) it trained on, predicted (N) and features (N, D) after it


def pretrain(
    settings: Settings,
    index: int,
    task: Task,
    state: dict[str, Any] | None = None,
    done: int = 0,
    timed: Timed = nullcontext,
) -> Iterator[Epoch]:
    """Train one network on the labelled source domain, its batch norms on the target's images too.

    Args:
        index: Which of a pair of networks (0 or 1); their random streams differ.
        state, done: An epoch's state and its number, to go on from there; that epoch comes first again.
        timed: Entered around the stage `train`.
    """
    device = task.source.images.device
    pids = numbered(task.source.pids)
    network = build_network(
        settings.backbone,
        int(pids.max()) + 1,
        seed=stream_seed(settings.seed, "weights", index),
        bn_group=settings.bn_group or None,
        imagenet=settings.imagenet or None,
        gain=settings.gain if settings.backbone == "small" else None,
        stem_stride=settings.stem_stride,
    )
    network = network.to(device)
    optimizer = adam([network], settings.source_lr, settings.weight_decay)
    if state:
        network.load_state_dict(state["network"])
        optimizer.load_state_dict(state["optimizer"])
        yield Epoch(done, [network], state, {})
    compile_networks(settings, [network])
    labels = torch.as_tensor(pids, device=device)
    # Erasing belongs to adaptation.
    look = {"flip": settings.flip, "padding": settings.padding, "erasing": 0.0}
    options = {"label_smoothing": settings.label_smoothing, "autocast": autocast(settings, device)}

    def step(_: object, source: Tensor, target: Tensor, ids: Tensor) -> dict[str, Tensor]:
        return source_step(network, optimizer, source, ids, target, **options)

    for epoch in range(done, settings.source_epochs):
        lr = learning_rate(settings, epoch)
        for group in optimizer.param_groups:
            group["lr"] = lr
        with timed("train"):
            rng = np.random.default_rng(stream_seed(settings.seed, "source", index, epoch))
            shape = (settings.source_iterations, settings.num_ids, settings.num_instances)
            batches = identity_batches(pids, task.source.camids, *shape, rng)
            others = rng.integers(len(task.target.pids), size=batches.shape)
            rows, other_rows = (torch.from_numpy(each).to(device) for each in (batches, others))
            generator = torch.Generator().manual_seed(stream_seed(settings.seed, "source views", index, epoch))
            sources = augmented_views(task.source.images, rows, 1, generator, **look)
            targets = augmented_views(task.target.images, other_rows, 1, generator, **look)
            inputs = ((*source, *target, labels[row]) for source, target, row in zip(sources, targets, rows))
            losses = take_steps(step, inputs)
        state = {"network": network.state_dict(), "optimizer": optimizer.state_dict()}
        yield Epoch(epoch + 1, [network], state, {"epoch": epoch + 1, "lr": lr, **losses})


def adapt(
    settings: Settings,
    networks: Sequence[nn.Module],
    task: Task,
    state: dict[str, Any] | None = None,
    done: int = 0,
    timed: Timed = nullcontext,
) -> Iterator[Epoch]:
    """Adapt pre-trained networks to the target by one method of the table.

    Each epoch: label the target by clusters of the mean networks' features (or of the networks', where a method has no
    means), give every network the centres of its own features as its classifier, train, extract, score. The record
    of an epoch holds the scores of network 1's mean (or of network 1); nothing is chosen by them.

    Args:
        networks: One or two pre-trained networks; changed in place.
        state, done: As in `pretrain`.
        timed: Entered around the stages `cluster`, `train`, `extract` and `score`.

    Yields:
        The epochs; of a method without adaptation a single one, number 0.
    """
    method, target = METHODS[settings.method], task.target
    networks = list(networks[: method.networks])
    means = [copy.deepcopy(network) for network in networks] if method.means else []
    used = means or networks
    memory: dict[str, Any] = {}  # what the clustering takes over from the first epoch (DBSCAN's eps)

    def scores() -> dict[str, Any]:
        return score(settings, used[0], task.query, task.gallery, cameras=method.cameras)

    if method.labels == "none":
        yield Epoch(0, used, {}, {"epoch": 0, **scores()})
        return
    if state:
        memory = state["memory"]
        for network, tensors in zip(networks + means, state["networks"], strict=True):
            network.set_classifier(tensors["classifier.weight"])
            network.load_state_dict(tensors)
        yield Epoch(done, used, state, {})
    compile_networks(settings, networks + means)
    features = embeddings(settings, used, target.images)
    for epoch in range(done, settings.epochs):
        with timed("cluster"):
            labels = pseudo_labels(settings, epoch, features, target, memory)
        with timed("train"):
            _start_classifiers(settings, networks, means, features, labels)
            losses = _train(settings, epoch, networks, means, labels, target)
        with timed("extract"):
            features = embeddings(settings, used, target.images)
            weights = used[0].classifier.weight.detach().float()
            predicted = (features[0] @ weights.T).argmax(dim=1).cpu().numpy()
        with timed("score"):
            record = {"epoch": epoch + 1, "clusters": int(labels.max()) + 1, **losses, **scores()}
            record |= measure_labels(labels, predicted, target.pids)
        arrays = {"labels": labels.astype(np.int32), "predicted": predicted.astype(np.int32)}
        arrays["features"] = torch.cat(features, dim=1).half().cpu().numpy()
        state = {"networks": [network.state_dict() for network in networks + means], "memory": memory}
        yield Epoch(epoch + 1, used, state, record, arrays)


def pseudo_labels(
    settings: Settings, epoch: int, features: Sequence[Tensor], target: Images, memory: dict[str, Any]
) -> np.ndarray:
    """Hard labels (N) of the target images for one epoch (from 0): 0 … K − 1, or −1 for an image that is left out.

    Args:
        features: One (N, D) tensor of unit rows per network; clustering stays on its device.
        target: The images; their identities are read by `supervised` only. Corrected labels take the place of clusters.
        memory: Holds DBSCAN's eps from the first epoch on.

    Raises:
        InputError: Fewer than two clusters, or K exceeds N.
    """
    method = METHODS[settings.method]
    if method.labels == "identities":
        return numbered(target.pids)
    if method.cameras == "embeddings":
        features = [camera_normalised(each, target.camids) for each in features]
    # Networks from different random starts share no feature space: their features are put side by side. The authors'
    # networks share ImageNet's start, and their features are averaged.
    joined = features[0]
    if len(features) > 1:
        concat = settings.cluster_features == "concat"
        both = torch.cat(list(features), dim=1) if concat else sum(features) / len(features)
        joined = nn.functional.normalize(both)
    seed = stream_seed(settings.seed, "clusters", epoch)
    if settings.target_labels:
        labels = numbered(target.labels)
    elif method.clustering == "kmeans":
        labels = clustering.kmeans(joined, settings.clusters, seed)[0].cpu().numpy()
    else:
        similarity = jaccard_similarity(joined, settings.k1, settings.k2)
        rho = settings.rho or clustering.authors_rho(len(joined))
        memory.setdefault("eps", clustering.dbscan_eps(similarity, rho))
        labels = clustering.dbscan_labels(similarity, memory["eps"], settings.min_samples)
    if labels.max() < 1:
        raise InputError(
            f"clustering {len(labels)} images gave {int(labels.max()) + 1} cluster(s) in epoch {epoch + 1}, "
            "at least 2 are needed: with DBSCAN lower min_samples or raise rho, with k-means raise clusters; the "
            "epochs before it are kept"
        )
    if settings.noise_rate:
        rng = np.random.default_rng(stream_seed(settings.seed, "noise", epoch))
        labels = measures.corrupt(labels, settings.noise_rate, settings.noise_kind, target.camids, rng)
    return labels


def _start_classifiers(
    settings: Settings,
    networks: Sequence[nn.Module],
    means: Sequence[nn.Module],
    features: Sequence[Tensor],
    labels: np.ndarray,
) -> None:
    """Give each network and its mean the cluster centres of their own features (or of the average) as classifier."""
    if settings.cluster_features == "average":
        features = [sum(features) / len(features)] * len(networks)
    for i, network in enumerate(networks):
        weights = clustering.classifier_weights(features[i], labels)
        for each in (network, *means[i : i + 1]):
            each.set_classifier(weights)


def _train(
    settings: Settings,
    epoch: int,
    networks: Sequence[nn.Module],
    means: Sequence[nn.Module],
    labels: np.ndarray,
    target: Images,
) -> dict[str, float]:
    """All steps of one epoch; returns the means of the loss parts and of the batch accuracy."""
    method, device = METHODS[settings.method], target.images.device
    lr = settings.lr * (half_cosine((epoch + 0.5) / settings.epochs) if method.falling else 1)
    optimizer = adam(networks, lr, settings.weight_decay)  # anew each epoch, as the authors do
    rng = np.random.default_rng(stream_seed(settings.seed, "batches", epoch))
    shape = (settings.iterations, settings.num_ids, settings.num_instances)
    rows = torch.from_numpy(identity_batches(labels, target.camids, *shape, rng)).to(device)
    pids = torch.as_tensor(labels, device=device)
    options = {"label_smoothing": settings.label_smoothing, "autocast": autocast(settings, device)}
    if method.step == "co-teaching":
        ramp = min(1.0, epoch / max(1, settings.epochs // 2))  # Han 2018: R(T), linear
        options |= {"keep": 1 - settings.forget_rate * ramp}
    elif method.step == "mmt":
        soft_ce, soft_tri = method.soft_ce, method.soft_triplet
        options |= {"soft_ce_weight": settings.soft_ce_weight if soft_ce == "setting" else soft_ce}
        options |= {"soft_tri_weight": settings.soft_triplet_weight if soft_tri == "setting" else soft_tri}
        options |= {"alpha": settings.alpha, "teacher": method.teacher}

    def step(number: int | Tensor, *inputs: Tensor) -> dict[str, Tensor]:
        *views, ids = inputs
        if method.step == "co-teaching":
            return co_teaching_step(networks, optimizer, views, ids, **options)
        if method.step == "cluster contrast":
            return cluster_contrast_step(networks[0], optimizer, *views, ids, autocast=options["autocast"])
        return mmt_step(networks, means, optimizer, views, ids, step=number, **options)

    generator = torch.Generator().manual_seed(stream_seed(settings.seed, "views", epoch))
    look = {"flip": settings.flip, "padding": settings.padding, "erasing": settings.erasing}
    views = augmented_views(target.images, rows, len(networks), generator, **look)
    inputs = ((*view, pids[row]) for view, row in zip(views, rows))
    return take_steps(step, inputs, epoch * settings.iterations)


def learning_rate(settings: Settings, epoch: int) -> float:
    """Learning rate of a source epoch (from 0): linear warm-up from 1 %, then steps (as published) or half a cosine.

    The authors' scheduler advances before an epoch, so epoch 0 has taken the first step already.
    """
    ramp = min(1.0, (epoch + 1) / settings.source_warmup) if settings.source_warmup else 1.0
    if settings.source_decay == "cosine":
        left = max(1, settings.source_epochs - settings.source_warmup)
        decay = half_cosine(max(0.0, epoch + 0.5 - settings.source_warmup) / left)
    else:
        decay = 0.1 ** sum(epoch + 1 >= milestone for milestone in settings.source_milestones)
    return settings.source_lr * decay * (0.01 + 0.99 * ramp)


def half_cosine(share: float) -> float:
    """From 1 at share 0 to 0 at share 1."""
    return 0.5 * (1 + math.cos(math.pi * share))


def stream_seed(seed: int, *names: str | int) -> int:
    """A seed for one named stream of random numbers."""
    return zlib.crc32(repr((seed, *names)).encode())


def compile_networks(settings: Settings, networks: Sequence[nn.Module]) -> None:
    """Let `torch.compile` fuse the convolutional parts, where the settings ask for it (a minute at the first step).

    On a CPU it does not pay: a step of the small network came out a sixth slower.
    """
    for network in networks if settings.compile else ():
        network.base.compile()
