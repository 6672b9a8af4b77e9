"""Runs: everything trained lives in a folder named by its configuration's hash, and is trained once.

A run that exists is loaded, one that was interrupted goes on from its last whole epoch, and two processes that
ask for one run at once share it: the second waits on a lock that dies with its holder.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from threadpoolctl import threadpool_limits

from mmtlib.adaptation import Epoch, adapt, pretrain
from mmtlib.config import METHODS, SOURCE_SETTINGS, Settings, config_hash
from mmtlib.data.checks import unscored
from mmtlib.data.content import digests
from mmtlib.data.tasks import data_keys, load_task, open_dataset
from mmtlib.distances import one_thread
from mmtlib.runs import preflight
from mmtlib.runs.folder import RunFolder
from mmtlib.runs.provenance import provenance
from mmtlib.runs.stages import Stages

Progress = Callable[[str, int, int], None]  # stage, epochs done, epochs in all


def source_config(settings: Settings, index: int, data: list[str] | None = None) -> dict[str, Any]:
    """What a pre-trained network depends on. `data`: `tasks.data_keys`, where they are known already."""
    which = {"stage": "source", "index": index, "seed": settings.seed, "data": data or data_keys(settings)}
    values = settings.to_dict()
    return which | {name: values[name] for name in SOURCE_SETTINGS}


def run_config(settings: Settings, data: list[str] | None = None) -> dict[str, Any]:
    """What an adaptation run depends on. `data`: as in `source_config`."""
    labels = settings.target_labels
    corrected = {"labels": digests(Path(), [labels])[0]} if labels else {}
    return {"stage": "adapt", "data": data or data_keys(settings)} | corrected | settings.to_dict()


def source_folder(settings: Settings, index: int, out: Path, data: list[str] | None = None) -> RunFolder:
    """Where a pre-trained network lives."""
    config = source_config(settings, index, data)
    return RunFolder(Path(out) / "cache" / f"source-{config_hash(config)}")


def run_folder(settings: Settings, out: Path, data: list[str] | None = None) -> RunFolder:
    """Where a run lives, whether it exists or not."""
    return RunFolder(Path(out) / "cache" / f"{settings.method}-{config_hash(run_config(settings, data))}")


def pretrained(
    settings: Settings, index: int, out: Path, progress: Progress | None = None, data: list[str] | None = None
) -> RunFolder:
    """One source pre-training (index 0 or 1 of the pair), as `run`; `data`: as in `source_config`."""
    data = data or data_keys(settings)
    folder = source_folder(settings, index, out, data)
    if folder.result:
        return folder
    preflight.try_step(settings)
    config = source_config(settings, index, data)
    with folder.claimed(config), _one_thread():
        if not folder.result:
            last, history = _train(folder, partial(pretrain, settings, index), settings, progress, "source")
            result = {"epochs": len(history), "seconds": {"train": _seconds(history, "train")}}
            folder.finish(last.networks, history, result | _identified(config))
    return folder


def run(settings: Settings, out: Path, progress: Progress | None = None, profile: str = "custom") -> RunFolder:
    """A run, loaded if it exists, continued if it was interrupted, else trained with the pre-training it needs.

    `out` is the folder that holds the cache, and `profile` names one for the result file.
    """
    data = data_keys(settings)  # once: for a large folder this takes a second
    folder = run_folder(settings, out, data)
    if folder.result:
        return folder
    preflight.check([settings])
    preflight.try_step(settings)
    networks = METHODS[settings.method].networks
    sources = [pretrained(settings, i, out, progress, data) for i in range(networks)]
    config = run_config(settings, data)
    with folder.claimed(config), _one_thread():
        if not folder.result:
            device = "cuda" if torch.cuda.is_available() else "cpu"
            started = [source.network().to(device).train() for source in sources]
            last, history = _train(folder, partial(adapt, settings, started), settings, progress, "adapt")
            result = _result(settings, profile, history, sources)
            folder.finish(last.networks, history, result | _identified(config))
    return folder


def _train(
    folder: RunFolder,
    loop: Callable[..., Iterator[Epoch]],
    settings: Settings,
    progress: Progress | None,
    stage: str,
) -> tuple[Epoch, list[dict]]:
    """Take the epochs that a run lacks one by one: time, keep and announce each. The last one, and the history."""
    state, history = folder.load() or (None, [])
    timed, total = Stages(), settings.source_epochs if stage == "source" else settings.epochs
    for epoch in loop(load_task(settings), state, len(history), timed):
        if epoch.record:
            history.append(epoch.record | timed.record())
            if epoch.number:  # what was not trained needs no checkpoint
                folder.save(epoch.state, history, epoch.arrays)
                if progress:
                    progress(stage, epoch.number, total)
    return epoch, history


def _result(settings: Settings, profile: str, history: list[dict], sources: list[RunFolder]) -> dict[str, Any]:
    """The contract's result file. The scores are those of the last epoch, None where the target has no test set."""
    last, stages = history[-1], history[-1]["seconds"]
    steps = settings.iterations * settings.num_ids * settings.num_instances * last["epoch"]
    return {
        **{name: getattr(settings, name) for name in ("method", "source", "target")},
        "profile": profile,
        **{name: getattr(settings, name) for name in ("seed", "clusters", "backbone")},
        **{name: last[name] for name in ("mAP", "top1", "top5", "top10", "scored", "queries")},
        "unscored": unscored(open_dataset(settings.target, settings)) if last["scored"] else None,
        "epochs": last["epoch"],
        "label_quality": {"first": history[0].get("label_quality"), "last": last.get("label_quality")},
        "seconds": {"source": sum(_seconds(source.history, "train") for source in sources)}
        | {stage: _seconds(history, stage) for stage in stages},
        "peak_memory": {"source": max(_peak(source.history, "train") for source in sources)}
        | {stage: _peak(history, stage) for stage in stages},
        "images_per_second": steps / _seconds(history, "train") if "train" in stages else None,
    }


def _identified(config: dict[str, Any]) -> dict[str, Any]:
    return {"config": config, "config_hash": config_hash(config)} | provenance()


def _seconds(history: list[dict], stage: str) -> float:
    return sum(record["seconds"].get(stage, 0.0) for record in history)


def _peak(history: list[dict], stage: str) -> float:
    """The most memory in GB that a stage took in any epoch: of the GPU, or of the whole process without one."""
    return max(record.get("peak_memory", {}).get(stage, 0.0) for record in history)


@contextmanager
def _one_thread() -> Iterator[None]:
    """One thread per run on a CPU: results do not depend on the machine's cores, and runs share them evenly."""
    if torch.cuda.is_available():
        yield
    else:
        with one_thread(), threadpool_limits(1):
            yield
