"""The MMT step on this machine: as it is, as a CUDA graph, compiled; against its floor, and part by part.

    python benchmarks/measure_step.py [--network NAME …] [--tiny] [--out FILE]

For the small network (both stems) and the ResNet-50 of the `paper` profile: milliseconds a step, images a second, and
the floor, which is the step's operations at the rate of one large matrix product in the precision that training takes.
A variant with other arithmetic must give the same losses. Without a GPU there is no graph and nothing is compiled.
"""

from __future__ import annotations

import argparse
import copy
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from bench.harness import DEVICE, machine_rates, measure
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from mmtlib.adaptation import compile_networks
from mmtlib.batches import augmented_views
from mmtlib.config import Settings, make_settings
from mmtlib.distances import repeatable_convolutions
from mmtlib.ema import update_mean_network
from mmtlib.evaluation import autocast
from mmtlib.files import home, write_json
from mmtlib.losses import batch_hard, soft_cross_entropy, soft_softmax_triplet, softmax_triplet
from mmtlib.networks import build_network
from mmtlib.runs.provenance import hardware, versions
from mmtlib.training import Parts, adam, mmt_step, take_steps

WORST = 2e-3  # largest relative difference of a mean loss over the first eight steps; bfloat16 compiled: tenfold
NETWORKS: dict[str, Settings] = {
    "small, stem stride 2": make_settings("quick", stem_stride=2),
    "small, stem stride 4": make_settings("quick", stem_stride=4),
    "resnet50": make_settings("paper", imagenet=""),
    "ibn-resnet50": make_settings("paper", imagenet="", backbone="ibn-resnet50"),
}


class Bench:
    """Two networks, their means, images and labels: all that a step needs."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.batch = settings.num_ids * settings.num_instances
        size = (8 * self.batch, 3, settings.height, settings.width)
        generator = torch.Generator().manual_seed(0)
        self.images = torch.randint(0, 256, size, dtype=torch.uint8, generator=generator).to(DEVICE)
        self.pids = torch.arange(settings.num_ids, device=DEVICE).repeat_interleave(settings.num_instances)
        small = {"stem_stride": settings.stem_stride, "gain": settings.gain}
        options = small if settings.backbone == "small" else {"bn_group": settings.bn_group or None}
        self.networks = [
            build_network(settings.backbone, settings.clusters, seed=seed, **options).to(DEVICE).train()
            for seed in (1, 2)
        ]
        self.means = [copy.deepcopy(network) for network in self.networks]
        compile_networks(settings, self.networks + self.means)
        self.optimizer = adam(self.networks, settings.lr, settings.weight_decay)
        self.generator = torch.Generator().manual_seed(1)
        self.options = {"autocast": autocast(settings, DEVICE)}
        self.weights = {"soft_ce_weight": settings.soft_ce_weight, "alpha": settings.alpha}
        self.weights |= {"soft_tri_weight": settings.soft_triplet_weight}

    def views(self, count: int) -> Any:
        """Both views of some batches."""
        rows = torch.arange(count * self.batch, device=DEVICE).view(count, -1) % len(self.images)
        look = {name: getattr(self.settings, name) for name in ("flip", "padding", "erasing")}
        return augmented_views(self.images, rows, 2, self.generator, **look)

    def take(self, count: int, *, graph: bool = False) -> dict[str, float]:
        """Some steps, and the means of their losses."""

        def step(number: int | Tensor, *inputs: Tensor) -> Parts:
            both = self.networks, self.means, self.optimizer
            return mmt_step(*both, inputs[:2], inputs[2], step=number, **self.weights, **self.options)

        return take_steps(step, ((*view, self.pids) for view in self.views(count)), graph=graph)

    @repeatable_convolutions()
    def parts(self, repeats: int) -> dict[str, float]:
        """Milliseconds of each part of a step by itself, one kernel after another: they add up to about a step."""
        views = next(iter(self.views(1)))
        with self.options["autocast"]:
            outputs = [network(view) for network, view in zip(self.networks, views)]
            taught = [mean(view) for mean, view in zip(self.means, views)][::-1]

        def forward(networks: list[torch.nn.Module]) -> None:
            with self.options["autocast"]:
                for network, view in zip(networks, views):
                    network(view)

        def losses() -> Tensor:
            total = torch.zeros((), device=DEVICE)
            for (f, z), (taught_f, taught_z) in zip(outputs, taught):
                mined = batch_hard(f, self.pids)
                total = total + soft_cross_entropy(z, taught_z.detach()) + softmax_triplet(f, self.pids, mined)
                total = total + soft_softmax_triplet(f, taught_f.detach(), self.pids, mined)
            return total

        def means() -> None:
            for mean, network in zip(self.means, self.networks):
                update_mean_network(mean, network, self.settings.alpha, 1)

        loss = losses()
        timed: dict[str, Callable[[], Any]] = {
            "two augmented views": lambda: list(self.views(1)),
            "forward, two networks": lambda: forward(self.networks),
            "forward, two mean networks": lambda: torch.no_grad()(forward)(self.means),
            "losses": losses,
            "backward": lambda: loss.backward(retain_graph=True),
            "Adam": self.optimizer.step,
            "mean networks": means,
        }
        found = {}
        for name, call in timed.items():
            call()
            found[name] = 1e3 * measure(lambda: [call() for _ in range(repeats)]).seconds / repeats  # noqa: B023
        return found


def study(settings: Settings, steps: int, rates: dict[str, float]) -> Iterator[dict[str, Any]]:
    """One network: the floor, the parts, and its variants, again after each of them."""
    plain = Bench(settings)
    low = isinstance(plain.options["autocast"], torch.autocast)
    with FlopCounterMode(display=False) as counter:
        plain.take(1)
    rate = rates["bfloat16_gflop_per_s" if low else "float32_gflop_per_s"]
    found: dict[str, Any] = {
        "batch": plain.batch,
        "image": [settings.height, settings.width],
        "precision": "bfloat16" if low else "float32",
        "giga_operations_per_step": counter.get_total_flops() / 1e9,
        "floor_ms": 1e3 * counter.get_total_flops() / 1e9 / rate,
        "parts_ms": plain.parts(max(2, steps // 5)),
        "variants": {},
    }
    on_gpu = DEVICE.type == "cuda"
    expected: dict[str, float] = {}
    variants = {"one kernel after another": (False, False)}
    if on_gpu:
        variants |= {"CUDA graph": (True, False), "compiled": (False, True)}
        variants |= {"compiled, CUDA graph": (True, True)}
    for name, (graph, compiled) in variants.items():
        if compiled:
            torch.compiler.reset()  # else the sizes of other networks would count as sizes of this one that vary
        bench = Bench(settings.replace(compile=compiled))
        first = bench.take(8 if on_gpu else 2, graph=graph)  # pays for what is loaded or compiled lazily
        expected = expected or first
        ms = 1e3 * measure(lambda: bench.take(steps, graph=graph)).seconds / steps  # noqa: B023
        worst = max(abs(first[part] - value) / max(1.0, abs(value)) for part, value in expected.items())
        found["variants"][name] = {
            "ms": ms,
            "images_per_second": 1e3 * bench.batch / ms,
            "times_floor": ms / found["floor_ms"],
            "largest_relative_difference": worst,
            "bound": WORST * (10 if compiled else 1),
        }
        yield found


def main() -> int:
    """Study the networks, print and write the file; exit status 1 where a variant's losses differ."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", action="append", choices=list(NETWORKS), help="default: all of them")
    parser.add_argument("--steps", type=int, default=60 if DEVICE.type == "cuda" else 5)
    parser.add_argument("--tiny", action="store_true", help="small images and batches: whether it works")
    parser.add_argument("--out", type=Path, default=home() / "results" / "gpu_step.json")
    options = parser.parse_args()
    rates = machine_rates(256 if options.tiny else None)
    chosen = "".join(f' --network "{name}"' for name in options.network or ())
    record: dict[str, Any] = {
        "command": "python benchmarks/measure_step.py" + chosen,
        "machine": rates,
        "networks": {},
        "hardware": hardware(),
        "versions": versions(),
    }
    for name in options.network or NETWORKS:
        settings = NETWORKS[name]
        if options.tiny:
            settings = settings.replace(height=32, width=16, num_ids=4, bn_group=min(8, settings.bn_group))
        for found in study(settings, 1 if options.tiny else options.steps, rates):
            record["networks"][name] = found
            write_json(options.out, record)  # whoever stops the next variant keeps this one
        print(name, found, flush=True)
    variants = [v for each in record["networks"].values() for v in each["variants"].values()]
    return int(any(v["largest_relative_difference"] > v["bound"] for v in variants))


if __name__ == "__main__":
    sys.exit(main())
