"""Benchmark of training: images per second of the MMT step against a plain loop on the same images."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from bench import plain_loop
from bench.harness import DEVICE, Benchmark, Size, available_bytes, measure
from mmtlib.batches import augmented_views
from mmtlib.config import Settings
from mmtlib.data.tasks import load_images
from mmtlib.evaluation import autocast
from mmtlib.networks import build_network
from mmtlib.training import adam, mmt_step, take_steps

CLASSES = 500
RESNET_BYTES = 10e9  # of a plain ResNet-50 step in float32 with 64 images: measured


def training_step(size: Size, baselines: bool = True) -> list[Benchmark]:
    """The MMT step of each network of the size; on a GPU also of both ResNet-50s, whatever the size."""
    networks = size.networks
    if DEVICE.type == "cuda" and size.batch == 64:
        networks = (("small", 64, 32, 100), ("resnet50", 256, 128, 30), ("ibn-resnet50", 256, 128, 30))
    with tempfile.TemporaryDirectory() as folder:
        files = _photographs(Path(folder), 4 * size.batch)
        return [_measure(files, *network, size.batch, baselines) for network in networks]


def _photographs(folder: Path, count: int) -> list[Path]:
    """Made-up JPEG files of Market-1501's 128 × 64 pixels: soft coloured patches."""
    rng = np.random.default_rng(0)
    for i in range(count):
        patches = Image.fromarray(rng.integers(0, 256, (8, 4, 3), dtype=np.uint8))
        patches.resize((64, 128), Image.Resampling.BICUBIC).save(folder / f"{i:05d}.jpg", quality=90)
    return sorted(folder.iterdir())


def _measure(
    files: list[Path], name: str, height: int, width: int, steps: int, batch: int, baselines: bool
) -> Benchmark:
    settings = Settings(height=height, width=width, padding=10, erasing=0.5, backbone=name)
    context = autocast(settings, DEVICE)
    low = isinstance(context, torch.autocast)
    pids = [i // 4 for i in range(len(files))]
    ours, plain = _our_steps(settings, files, pids, batch), _plain_steps(settings, files, pids, batch)
    with FlopCounterMode(display=False) as counter:
        ours(1)
    outcome = Benchmark(
        f"step {name}",
        {"height": height, "width": width, "batch": batch, "steps": steps, "bfloat16": low},
        flops=counter.get_total_flops() * steps,
        bytes=0,
        matrix="bfloat16" if low else "float32",
    )
    ours(min(3, steps))  # warm up
    outcome.rows["ours"] = measure(lambda: ours(steps))
    rates = {"ours": steps * batch / outcome.rows["ours"].seconds}
    if baselines and name != "small" and DEVICE.type == "cpu" and available_bytes() < RESNET_BYTES:
        outcome.skipped["plain loop"] = f"needs about {RESNET_BYTES / 1e9:.0f} GB of memory"
    elif baselines:
        plain(min(3, steps))
        outcome.rows["plain loop"] = measure(lambda: plain(steps))
        rates["plain loop"] = steps * batch / outcome.rows["plain loop"].seconds
        outcome.facts["times_faster"] = rates["ours"] / rates["plain loop"]
    outcome.facts["images_per_second"] = rates
    return outcome


def _our_steps(settings: Settings, files: list[Path], pids: list[int], batch: int) -> Callable[[int], None]:
    """A function that takes some of our steps, as `adaptation` does."""
    networks = _pair(settings)
    means = [copy.deepcopy(network) for network in networks]
    optimizer = adam(networks, settings.lr, settings.weight_decay)
    images = load_images(files[0].parent, [f.name for f in files], settings.height, settings.width, DEVICE)
    labels = torch.tensor(pids, device=DEVICE)
    generator = torch.Generator().manual_seed(0)
    weights = {"soft_ce_weight": settings.soft_ce_weight, "soft_tri_weight": settings.soft_triplet_weight}

    def step(number: int | torch.Tensor, *inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        *views, ids = inputs
        options = weights | {"alpha": 0.999, "step": number, "autocast": autocast(settings, DEVICE)}
        return mmt_step(networks, means, optimizer, views, ids, **options)

    def steps(count: int) -> None:
        rows = torch.arange(count * batch, device=DEVICE).view(count, batch) % len(images)
        look = {"flip": settings.flip, "padding": settings.padding, "erasing": settings.erasing}
        views = augmented_views(images, rows, len(networks), generator, **look)
        take_steps(step, ((*view, labels[row]) for view, row in zip(views, rows)))

    return steps


def _plain_steps(settings: Settings, files: list[Path], pids: list[int], batch: int) -> Callable[[int], None]:
    """A function that takes some steps of the plain loop."""
    state: list = []  # made at the first call: two sets of networks need not be held at once

    def steps(count: int) -> None:
        if not state:
            networks = [network.to(memory_format=torch.contiguous_format) for network in _pair(settings)]
            dataset = plain_loop.PairDataset(files, pids, settings.height, settings.width)
            batches = plain_loop.endless_batches(dataset, batch, DEVICE)
            state.extend((networks, plain_loop.mean_networks(networks), plain_loop.plain_adam(networks), batches))
        networks, means, optimizer, batches = state
        for step in range(count):
            *views, labels = next(batches)
            plain_loop.plain_step(networks, means, optimizer, views, labels, step)

    return steps


def _pair(settings: Settings) -> list[torch.nn.Module]:
    return [build_network(settings.backbone, CLASSES, seed=seed).to(DEVICE).train() for seed in (1, 2)]
