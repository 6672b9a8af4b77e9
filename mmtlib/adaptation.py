"""The two loops: source pre-training and adaptation, epoch by epoch, from a checkpoint onwards.

Every random draw comes from a stream that is named by (seed, stage, epoch): an epoch that is begun again, after
a crash or in another process, draws the same numbers, and a checkpoint needs no generator state.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mmtlib import InputError, clustering
from mmtlib.batches import identity_batches
from mmtlib.config import METHODS, Settings
from mmtlib.data.tasks import Images, Task
from mmtlib.epochs import Checkpoints, Progress, Stages, augmented_views, compile_in_place, stream_seed
from mmtlib.evaluation import autocast, camera_normalised, extract, measure_labels, numbered, score
from mmtlib.jaccard import jaccard_similarity
from mmtlib.networks import build_network
from mmtlib.noise import measures
from mmtlib.training import Parts, adam, co_teaching_step, learning_rate, mmt_step, source_step, take_steps


def pretrain(
    settings: Settings, index: int, task: Task, checkpoints: Checkpoints, progress: Progress
) -> tuple[nn.Module, list[dict]]:
    """Train one network on the labelled source domain, its batch norms on the target's images too.

    Args:
        settings: The source part of the settings.
        index: Which of a pair of networks (0 or 1); their random streams differ.
        task: The data.
        checkpoints: Asked for a state first, given one after each epoch.
        progress: Called after each epoch.

    Returns:
        The network, and one record per epoch.

    Raises:
        FloatingPointError: A loss was not finite; the last checkpoint is whole.

    Taught in: notebook 01.
    """
    device = task.source.images.device
    pids = numbered(task.source.pids)
    network = build_network(
        settings.backbone,
        int(pids.max()) + 1,
        seed=stream_seed(settings.seed, "weights", index),
        **(
            {"gain": settings.gain, "stem_stride": settings.stem_stride}
            if settings.backbone == "small"
            else {}
        ),
        bn_group=settings.bn_group or None,
        imagenet=settings.imagenet or None,
    )
    network = network.to(device).train()
    optimizer = adam([network], settings.source_lr, settings.weight_decay)
    history: list[dict] = []
    if saved := checkpoints.load():
        state, history = saved
        network.load_state_dict(state["network"])
        optimizer.load_state_dict(state["optimizer"])
    compile_in_place(settings, [network])
    labels = torch.as_tensor(pids, device=device)
    look = settings.replace(erasing=0.0)  # as the authors have it: erasing belongs to adaptation
    for epoch in range(len(history), settings.source_epochs):
        stages = Stages()
        with stages("train"):
            rng = np.random.default_rng(stream_seed(settings.seed, "source", index, epoch))
            shape = (settings.source_iterations, settings.num_ids, settings.num_instances)
            batches = identity_batches(pids, task.source.camids, *shape, rng)
            others = rng.integers(len(task.target.pids), size=batches.shape)
            views = torch.Generator().manual_seed(stream_seed(settings.seed, "source views", index, epoch))
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(settings, epoch)
            rows = torch.from_numpy(np.stack([batches, others], axis=1)).to(device)  # (steps, 2, B)
            sources = augmented_views(look, task.source.images, rows[:, 0], 1, views)
            targets = augmented_views(look, task.target.images, rows[:, 1], 1, views)

            def step(_: object, source: Tensor, target: Tensor, pids: Tensor) -> Parts:
                options = {
                    "label_smoothing": settings.label_smoothing,
                    "autocast": autocast(settings, device),
                }
                return source_step(network, optimizer, source, pids, target, **options)

            inputs = ((*s, *t, labels[row]) for s, t, row in zip(sources, targets, rows[:, 0]))
            losses = take_steps(step, inputs)
        lr = learning_rate(settings, epoch)
        history.append({"epoch": epoch + 1, "lr": lr, **losses, **stages.record()})
        checkpoints.save({"network": network.state_dict(), "optimizer": optimizer.state_dict()}, history, {})
        progress("source", epoch + 1, settings.source_epochs)
    return network, history


def adapt(
    settings: Settings,
    networks: Sequence[nn.Module],
    task: Task,
    checkpoints: Checkpoints,
    progress: Progress,
) -> tuple[list[nn.Module], list[dict]]:
    """Adapt pre-trained networks to the target by one method of the table.

    Each epoch: cluster the target features of the mean networks (or of the networks, where a method has no
    means), give every network the centres of its own features as its classifier, train, score. The record of
    an epoch holds the scores of network 1's mean (or of network 1); nothing is chosen by them.

    Args:
        settings: The adaptation part of the settings; `settings.method` names the row of the table.
        networks: One or two pre-trained networks; changed in place.
        task: The data.
        checkpoints: Asked for a state first, given one after each epoch.
        progress: Called after each epoch.

    Returns:
        The networks to be used (mean networks where there are any), and one record per epoch; for a method
        without adaptation, one record with the scores.

    Raises:
        FloatingPointError: A loss was not finite; the last checkpoint is whole.
        InputError: Clustering gave fewer than two clusters, or K exceeds the number of images.

    Taught in: notebook 04.
    """
    method = METHODS[settings.method]
    networks = list(networks[: method.networks])
    means = [copy.deepcopy(network) for network in networks] if method.means else []
    used = means or networks
    search = {"camera_norm": method.camera_norm}
    history: list[dict] = []
    memory: dict[
        str, Any
    ] = {}  # what the clustering of later epochs takes over from the first (DBSCAN's eps)
    if saved := checkpoints.load():
        state, history = saved
        memory = state["memory"]
        for network, tensors in zip(networks + means, state["networks"], strict=True):
            network.set_classifier(tensors["classifier.weight"])
            network.load_state_dict(tensors)
    if method.labels == "none":
        return used, history or [
            {"epoch": 0, **Stages().record(), **score(settings, used[0], task.query, task.gallery, **search)}
        ]
    compile_in_place(settings, networks + means)
    features = extract(settings, used, task.target.images)
    for epoch in range(len(history), settings.epochs):
        stages = Stages()
        with stages("cluster"):
            labels = pseudo_labels(settings, epoch, features, task.target, memory)
        with stages("train"):
            losses = _train_epoch(settings, epoch, networks, means, features, labels, task.target)
        with stages("extract"):
            features = extract(settings, used, task.target.images)
            predicted = (features[0] @ used[0].classifier.weight.detach().float().cpu().numpy().T).argmax(
                axis=1
            )
        with stages("score"):
            record = {"epoch": epoch + 1, "clusters": int(labels.max()) + 1, **losses}
            record |= measure_labels(labels, predicted, task.target.pids)
            record |= score(settings, used[0], task.query, task.gallery, **search)
        history.append(record | stages.record())
        state = {"networks": [network.state_dict() for network in networks + means], "memory": memory}
        arrays = {"labels": labels.astype(np.int32), "predicted": predicted.astype(np.int32)}
        arrays["features"] = np.concatenate(features, axis=1).astype(np.float16)
        checkpoints.save(state, history, arrays)
        progress("adapt", epoch + 1, settings.epochs)
    return used, history


def pseudo_labels(
    settings: Settings, epoch: int, features: Sequence[np.ndarray], target: Images, memory: dict[str, Any]
) -> np.ndarray:
    """Hard labels of the target images for one epoch.

    Args:
        settings: Names the method, K or DBSCAN's parameters, and the controlled noise.
        epoch: From 0; the random streams depend on it.
        features: One (N, D) array of unit rows per network.
        target: The images; their identities are read by `supervised` only.
        memory: Holds DBSCAN's eps from the first epoch on.

    Returns:
        Labels 0 … K − 1, or −1 for an image that is left out, (N) int64.

    Raises:
        InputError: Fewer than two clusters, or K exceeds N.
    """
    method = METHODS[settings.method]
    if method.labels == "identities":
        return numbered(target.pids)
    if method.camera_norm:
        features = [camera_normalised(each, target.camids) for each in features]
    joined = features[0] if len(features) == 1 else _join(settings, features)
    seed = stream_seed(settings.seed, "clusters", epoch)
    if method.clustering == "kmeans":
        labels, _ = clustering.kmeans(joined, settings.clusters, seed)
    else:
        options = {"k1": settings.k1, "k2": settings.k2}
        similarity = jaccard_similarity(joined, **options)
        memory.setdefault("eps", clustering.dbscan_eps(similarity, settings.rho))
        labels = clustering.dbscan_labels(similarity, memory["eps"], settings.min_samples)
    if labels.max() < 1:
        raise InputError(
            f"clustering {len(labels)} images gave {int(labels.max()) + 1} cluster(s) in epoch {epoch + 1}, "
            "at least 2 are needed: with DBSCAN lower min_samples or raise rho, with k-means raise clusters"
        )
    if settings.noise_rate:
        rng = np.random.default_rng(stream_seed(settings.seed, "noise", epoch))
        labels = measures.corrupt(labels, settings.noise_rate, settings.noise_kind, target.camids, rng)
    return labels


def _join(settings: Settings, features: Sequence[np.ndarray]) -> np.ndarray:
    """One feature per image from both networks', unit rows.

    Networks from different random starts share no feature space: their features are put side by side. The authors'
    networks share ImageNet's start, and their features are averaged.
    """
    joined = (
        np.concatenate(features, axis=1)
        if settings.cluster_features == "concat"
        else np.mean(features, axis=0)
    )
    return joined / np.linalg.norm(joined, axis=1, keepdims=True)


def _train_epoch(
    settings: Settings,
    epoch: int,
    networks: list[nn.Module],
    means: list[nn.Module],
    features: Sequence[np.ndarray],
    labels: np.ndarray,
    target: Images,
) -> dict[str, float]:
    """All steps of one epoch; returns the means of the loss parts and of the batch accuracy."""
    method = METHODS[settings.method]
    device = target.images.device
    shared = np.mean(features, axis=0) if settings.cluster_features == "average" else None
    for i, network in enumerate(networks):
        weights = clustering.classifier_weights(features[i] if shared is None else shared, labels)
        for each in [network, *means[i : i + 1]]:
            each.set_classifier(torch.from_numpy(weights))
    optimizer = adam(networks, settings.lr, settings.weight_decay)
    rng = np.random.default_rng(stream_seed(settings.seed, "batches", epoch))
    shape = (settings.iterations, settings.num_ids, settings.num_instances)
    batches = torch.from_numpy(identity_batches(labels, target.camids, *shape, rng)).to(device)
    pids = torch.as_tensor(labels, device=device)
    generator = torch.Generator().manual_seed(stream_seed(settings.seed, "views", epoch))
    options = {"label_smoothing": settings.label_smoothing, "autocast": autocast(settings, device)}
    if method.small_loss:
        ramp = min(1.0, epoch / max(1, settings.epochs // 2))  # Han 2018: R(T), linear
        options |= {"keep": 1 - settings.forget_rate * ramp}
    else:
        options |= {"alpha": settings.alpha, "teacher": method.teacher}
        for name in ("soft_ce", "soft_triplet"):
            weight = getattr(method, name)
            weight = getattr(settings, f"{name}_weight") if weight == "setting" else weight
            options["soft_tri_weight" if name == "soft_triplet" else "soft_ce_weight"] = weight

    def step(number: int | Tensor, *inputs: Tensor) -> Parts:
        *views, pids = inputs
        if method.small_loss:
            return co_teaching_step(networks, optimizer, views, pids, **options)
        return mmt_step(networks, means, optimizer, views, pids, step=number, **options)

    views = augmented_views(settings, target.images, batches, len(networks), generator)
    inputs = ((*view, pids[batch]) for view, batch in zip(views, batches))
    return take_steps(step, inputs, epoch * settings.iterations)
