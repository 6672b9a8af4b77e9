"""The differences between our runs and the paper's, as data: the report lists those that hold for its runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from mmtlib.config import EMBEDDED_DOMAINS, Settings


@dataclass(frozen=True)
class Deviation:
    """One difference from the paper: what we do instead, filled in from a run's settings, and when it holds."""

    text: str
    holds: Callable[[dict[str, Any]], bool]


def _is(name: str, *values: Any) -> Callable[[dict[str, Any]], bool]:
    return lambda config: config[name] in values


def _not(name: str, *values: Any) -> Callable[[dict[str, Any]], bool]:
    return lambda config: config[name] not in values


# The authors' setting: Ge et al., ICLR 2020, and their code (github.com/yxgeee/MMT).
DEVIATIONS: tuple[Deviation, ...] = (
    Deviation(
        "Data: drawn pedestrians with a known truth (domains {source} and {target}) stand in for photographs "
        "(Market-1501, DukeMTMC-reID, MSMT17).",
        lambda config: {config["source"], config["target"]} <= set(EMBEDDED_DOMAINS),
    ),
    Deviation(
        "Network: a ResNet of four basic blocks with 128 features, not a ResNet-50 with 2048.",
        _is("backbone", "small"),
    ),
    Deviation("Start: networks start from random weights, not from ImageNet's.", _is("imagenet", "")),
    Deviation(
        "Pooled features are multiplied by a constant gain of {gain:g}: distances of 128 features are smaller than "
        "those of 2048, and the softmax over them would be flat.",
        _is("backbone", "small"),
    ),
    Deviation(
        "Image size: {height} × {width} pixels, not 256 × 128.",
        lambda c: (c["height"], c["width"]) != (256, 128),
    ),
    Deviation("Crops: {padding} pixels of padding, not 10.", _not("padding", 10)),
    Deviation(
        "Random erasing is off; the paper erases half of the images of adaptation. On small images it "
        "hides whole cues.",
        _is("erasing", 0.0),
    ),
    Deviation(
        "Random erasing fills with the ImageNet mean (0 after normalisation); the authors' code fills them "
        "with 0.485, 0.456, 0.406.",
        _not("erasing", 0.0),
    ),
    Deviation(
        "The two networks start from different random weights and share no feature space: clustering sees their "
        "features side by side, and each gets the centres of its own; the authors' networks share ImageNet's start, "
        "and their features are averaged.",
        _is("cluster_features", "concat"),
    ),
    Deviation(
        "Source pre-training: {source_epochs} epochs of {source_iterations} iterations, not 80 of 100.",
        lambda config: (config["source_epochs"], config["source_iterations"]) != (80, 100),
    ),
    Deviation(
        "Adaptation: {epochs} epochs of {iterations} iterations, not 40 of 800 (400 in the authors' scripts).",
        lambda config: (config["epochs"], config["iterations"]) not in ((40, 400), (40, 800)),
    ),
    Deviation(
        "Learning rates: {source_lr:g} in pre-training, and in adaptation one per method, chosen on development worlds "
        "and seeds ({lr:g} for the run that filled in this list); the paper's is 3.5e-4 for all.",
        lambda config: (config["source_lr"], config["lr"]) != (3.5e-4, 3.5e-4),
    ),
    Deviation(
        "Mean networks: α = {alpha:g}, not 0.999, because the schedule is shorter.", _not("alpha", 0.999)
    ),
    Deviation("Batches: {num_ids} identities × {num_instances} images, not 16 × 4.", _not("num_ids", 16)),
    Deviation(
        "Batch norm sees the whole batch; the authors' four GPUs see 16 images each.", _not("bn_group", 16)
    ),
    Deviation(
        "Clusters: K = {clusters}, one per 26 training images, as the paper's K = 500 on Market-1501; half and twice "
        "beside it. The paper's K are 500, 700, 900 (to 2000 on MSMT17).",
        _not("clusters", 500, 700, 900, 1000, 1500, 2000),
    ),
    Deviation(
        "DBSCAN: eps is the mean of as many smallest distances an image as in the authors' runs on Market-1501 (21), "
        "not of the smallest 1.6e-3 of all, which on small sets would leave most images out.",
        _not("rho", 1.6e-3),
    ),
    Deviation(
        "Network: its first convolution has stride {stem_stride}, and no max-pool follows.",
        _is("backbone", "small"),
    ),
    Deviation(
        "Precision: forward and backward passes in bfloat16 where the hardware has it; losses on distances in float32.",
        _not("precision", "float32"),
    ),
    Deviation(
        "Reported: the last epoch of network 1's mean network (network 1 where a method has no means). The authors "
        "report the best epoch and network by the target's test mAP, which a user without target labels cannot know.",
        lambda config: True,
    ),
)


def deviations(results: Sequence[dict]) -> list[tuple[int, str]]:
    """The deviations that hold for at least one of the results: (place in `DEVIATIONS` from 1, text)."""
    configs = [Settings().to_dict() | result.get("config", {}) for result in results]
    configs.sort(
        key=lambda config: config["method"] != "mmt"
    )  # MMT's values, where it was run, fill in the texts
    held = ((i, d, next(filter(d.holds, configs), None)) for i, d in enumerate(DEVIATIONS, start=1))
    return [(i, deviation.text.format(**config)) for i, deviation, config in held if config is not None]
