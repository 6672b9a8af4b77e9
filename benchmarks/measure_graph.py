"""The MMT step of the small network on a GPU: kernel by kernel, and replayed as a CUDA graph; both must agree.

python benchmarks/measure_graph.py      # writes results/gpu_step.json
"""

from __future__ import annotations

import copy
import sys
import time

import torch

from mmtlib.batches import augmented_views
from mmtlib.files import home, write_json
from mmtlib.networks import build_network
from mmtlib.runs.provenance import hardware, versions
from mmtlib.training import adam, mmt_step, take_steps

CLASSES, IMAGES, BATCH = 150, 3000, 64


def measure(stem_stride: int, graph: bool, steps: int) -> tuple[float, dict[str, float]]:
    """Milliseconds a step, and the mean losses of the first eight steps."""
    device = torch.device("cuda")
    images = torch.randint(
        0, 256, (IMAGES, 3, 64, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    images = images.to(device)
    rows = torch.randint(0, IMAGES, (steps, BATCH), generator=torch.Generator().manual_seed(1)).to(device)
    pids = torch.arange(BATCH // 4, device=device).repeat_interleave(4)
    networks = [build_network("small", CLASSES, seed=i, stem_stride=stem_stride).to(device) for i in (0, 1)]
    means = [copy.deepcopy(network) for network in networks]
    optimizer, generator = adam(networks, 1e-3, 5e-4), torch.Generator().manual_seed(0)
    weights = {"soft_ce_weight": 0.5, "soft_tri_weight": 0.8, "alpha": 0.99}

    def step(number: torch.Tensor, *inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        return mmt_step(networks, means, optimizer, inputs[:2], inputs[2], step=number, **weights)

    def take(count: int) -> dict[str, float]:
        views = augmented_views(images, rows[:count], 2, generator, padding=3, erasing=0.0)
        return take_steps(step, ((*view, pids) for view in views), graph=graph)

    first = take(8)  # pays for what is loaded lazily
    torch.cuda.synchronize()
    start = time.perf_counter()
    take(steps)
    torch.cuda.synchronize()
    return 1e3 * (time.perf_counter() - start) / steps, first


def main() -> int:
    """Measure both stems both ways, compare, write the file."""
    if not torch.cuda.is_available():
        print("no NVIDIA GPU here: nothing to measure", file=sys.stderr)
        return 2
    rows = []
    for stride in (2, 4):
        (eager, expected), (replayed, found) = measure(stride, False, 60), measure(stride, True, 200)
        worst = max(abs(found[name] - value) / max(1.0, abs(value)) for name, value in expected.items())
        row = {"stem_stride": stride, "eager_ms": eager, "graph_ms": replayed}
        rows.append(row | {"largest_relative_difference": worst})
        print(rows[-1])
    record = {"command": "python benchmarks/measure_graph.py", "rows": rows}
    record |= {"hardware": hardware(), "versions": versions()}
    write_json(home() / "results" / "gpu_step.json", record)
    return 0 if all(row["largest_relative_difference"] < 2e-3 for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
