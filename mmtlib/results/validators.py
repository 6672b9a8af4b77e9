"""Choosing an epoch, a method, K or eps without labels: six validators over what runs have stored, against hidden mAP.

Each looks at the target as the networks see it after an epoch: at the stored features, and at the clusters that the
run's own clustering makes of them, which would be the next epoch's labels. More is meant to be better.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch.nn.functional import normalize

from mmtlib import InputError
from mmtlib.adaptation import pseudo_labels
from mmtlib.clustering import classifier_weights
from mmtlib.config import METHODS, Settings, has_clusters, own_clusters
from mmtlib.data.readers import Split
from mmtlib.data.tasks import open_dataset
from mmtlib.distances import as_features, one_thread
from mmtlib.evaluation import camera_normalised
from mmtlib.files import write_json
from mmtlib.noise.clusters import cluster_table, silhouettes
from mmtlib.noise.measures import label_flow, with_singletons
from mmtlib.results.runs import read_rows, run_folders
from mmtlib.results.tables import frame, group_name
from mmtlib.runs.folder import RunFolder
from mmtlib.runs.provenance import provenance

VALIDATORS = {
    "silhouette": "silhouette",
    "density": "soft neighbourhood density",
    "agreement": "agreement of two networks",
    "stay": "labels that stay",
    "cameras": "camera entropy",
    "nuclear_norm": "nuclear norm (BNM)",
}
USUAL = {"epoch": "the last epoch", "method": "MMT", "K": "the profile's K", "eps": "the authors' rule"}
CHOICE = ["question", "task", "seed", "of", "validator", "rank", "regret", "gain"]
TEMPERATURE = 0.05  # of both softmax functions: Saito et al.'s
BLOCK = 2048  # images at a time


def silhouette(features, labels: np.ndarray) -> float:
    """Mean of `noise.clusters.silhouettes` over the images that are in a cluster."""
    return float(np.nanmean(silhouettes(features, labels)))


def density(features) -> float:
    """How many others an image is similar to (Saito et al., ICCV 2021): mean entropy of its softmax over them.

    −1/N Σ_i Σ_{j≠i} P_ij log P_ij with P_ij = exp(f_i·f_j / τ) / Σ_{k≠i} exp(f_i·f_k / τ).

    f are unit rows (N, D). The paper takes softmax outputs; our classes change each epoch.
    """
    rows, total = as_features(features), 0.0
    for start in range(0, len(rows), BLOCK):
        block = rows[start : start + BLOCK] @ rows.T / TEMPERATURE
        block.diagonal(start).fill_(-torch.inf)
        total += float(torch.special.entr(block.softmax(dim=1)).sum())
    return total / len(rows)


def agreement(first: np.ndarray, second: np.ndarray) -> float:
    """Adjusted mutual information of two clusterings (N) with two clusters or more; what is left out stands alone."""
    from sklearn.metrics import adjusted_mutual_info_score  # lazily: a second

    if min(len(np.unique(labels[labels >= 0])) for labels in (first, second)) < 2:
        raise InputError("two clusterings agree in something only where each has two clusters or more")
    return float(adjusted_mutual_info_score(with_singletons(first), with_singletons(second)))


def cameras(labels: np.ndarray, camids: np.ndarray) -> float:
    """Mean over the clusters of `noise.clusters.camera_entropy`; NaN where none could hold two cameras."""
    clusters = cluster_table(labels, camids=camids)
    return float(clusters["camera_entropy"].mean()) if len(clusters) else np.nan


def nuclear_norm(features, labels: np.ndarray) -> float:
    """Batch nuclear-norm maximisation (Cui et al., CVPR 2020) as a measure: ‖P‖_* / N, sure and varied predictions.

    P (N, K) is the softmax of the cosines of unit rows (N, D) to the centres of clusters 0 … K − 1 (labels, N, −1 for
    what was left out), over TEMPERATURE. The networks' own predictions are not stored, and an epoch begins with these
    centres as its classifier.
    """
    rows = as_features(features).float()
    centres = torch.as_tensor(classifier_weights(rows, labels), device=rows.device)
    return float(torch.linalg.matrix_norm((rows @ centres.T / TEMPERATURE).softmax(dim=1), "nuc")) / len(rows)


@one_thread()  # several would wait for each other where other programs run
def run_scores(run: RunFolder) -> list[dict[str, Any]]:
    """What the validators say of each epoch of a finished run: a record each, with `epoch` and the hidden `mAP`.

    None stands for a validator that has nothing to look at: one network, one camera, fewer than two clusters.
    """
    settings = Settings.of(run.result["config"] | {"noise_rate": 0.0, "target_labels": ""})
    target, records = open_dataset(settings.target, settings).train, []
    memories: list[dict] = [{}, {}, {}]  # each clustering keeps its own eps
    for record in run.history:
        try:
            arrays = run.epoch(record["epoch"])
        except FileNotFoundError as error:
            raise InputError(f"{error.filename} is missing: run this again to have its features") from error
        if (count := len(arrays["labels"])) != len(target):
            raise InputError(f"{run.path} has {count} images, {settings.target} {len(target)}: run it again")
        scores = _epoch_scores(settings, record["epoch"], arrays, target, memories)
        records.append({"epoch": record["epoch"], "mAP": record["mAP"]} | scores)
    return records


def _epoch_scores(
    settings: Settings, epoch: int, arrays: dict[str, np.ndarray], target: Split, memories: list[dict]
) -> dict[str, float | None]:
    method, device = METHODS[settings.method], "cuda" if torch.cuda.is_available() else "cpu"
    stored = torch.from_numpy(arrays["features"]).float().to(device)
    each = [normalize(part) for part in stored.chunk(method.networks, dim=1)]
    found = []  # the next epoch's labels, by all networks and by each
    for networks, memory in zip([each, *([one] for one in each)], memories):
        try:
            found.append(pseudo_labels(settings, epoch, networks, target, memory))
        except InputError:  # fewer than two clusters
            found.append(np.full(len(target), -1))
    if method.cameras == "embeddings":
        each = [camera_normalised(one, target.camids) for one in each]
    features, (labels, *own) = normalize(torch.cat(each, dim=1)), found
    inputs = {silhouette: (features, labels), density: (features,), cameras: (labels, target.camids)}
    inputs |= {nuclear_norm: (features, labels)} | ({agreement: own} if len(own) > 1 else {})
    scores = dict.fromkeys(VALIDATORS) | {"stay": label_flow(arrays["labels"], labels).stay_share}
    return scores | {validator.__name__: _value(validator, *given) for validator, given in inputs.items()}


def _value(validator: Callable[..., float], *inputs: Any) -> float | None:
    try:
        value = validator(*inputs)
    except InputError:
        return None
    return None if np.isnan(value) else round(value, 5)


def validate(places: Sequence[Path], file: Path, say: Callable[[str], None]) -> pd.DataFrame:
    """Score every epoch of all finished runs in some folders that cluster, and keep the numbers in a file for `read`.

    Args:
        say: Called with a line per run, which gives the reason where one is left out.

    Raises:
        InputError: No finished run with stored features.
    """
    clustered = {name for name, method in METHODS.items() if method.labels == "clusters"}
    found = [run for place in places for run in run_folders(place) if run.result["method"] in clustered]
    folders = {run.result["config_hash"]: run for run in found}
    every = frame([run.result for run in folders.values()]).to_dict("records") if folders else []
    rows, left_out = [], []
    for done, row in enumerate(every, start=1):
        line = f"{row['method']}, {group_name(row)}, seed {row['seed']}"
        try:
            rows += [_named(row) | record for record in run_scores(folders[row["result"]["config_hash"]])]
        except InputError as error:  # one run without features must not stop a hundred others
            left_out.append(line := f"{line}: left out, {error}")
        say(f"{done}/{len(every)} {line}")
    where = " ".join(map(str, places))
    if not rows:
        expected = "expected cache/<method>-<hash>/ with result.json and epochs/*.npz"
        reasons = "; ".join([expected, *left_out[:3]])
        raise InputError(f"no finished run with pseudo labels and features under {where}: {reasons}")
    command = f"mmt validate {where} --out {file}"
    write_json(file, {"command": command, **provenance(), "left_out": left_out, "epochs": rows})
    return pd.DataFrame(rows)


def _named(row: dict[str, Any]) -> dict[str, Any]:
    """What tells a run of `tables.frame` from others, and whether its settings are those that nobody chose."""
    result, named = row["result"], {name: row[name] for name in ("task", "method", "variant", "seed")}
    usual = result["clusters"] == own_clusters(result["profile"], result["target"]) and not row["variant"]
    return {"run": result["config_hash"], "clusters": result["clusters"]} | named | {"usual": usual}


def read(folder: str | Path | None = None, name: str = "validators") -> tuple[pd.DataFrame, str]:
    """The scores that `mmt validate` wrote into `<name>.json` of a folder, and a note (see `read_rows`).

    Returns:
        A row per run and epoch: run (its hash), task, method, variant, clusters, seed, usual (K and all else are the
        profile's), epoch, mAP, and a column per validator.
    """
    return read_rows(name, "epochs", f"mmt validate RUNS --out results/{name}.json", folder)


def read_choices(folder: str | Path | None = None) -> tuple[pd.DataFrame, str]:
    """`choices` of the committed files, each for the questions that its runs answer, and a note of their origin.

    Epochs and methods: the runs of matrices/ablations.yaml. K: on its first task those of matrices/clusters.yaml, and
    those of `mmt run --profile quick` with the profile's K.
    """
    made, notes = [], []
    for name, questions in (("validators", ["epoch", "method"]), ("validators_clusters", ["K"])):
        rows, note = read(folder, name)
        every = choices(rows)
        made.append(every[every["question"].isin(questions)])
        notes.append(note)
    return pd.concat([each for each in made if len(each)] or made[:1], ignore_index=True), "\n".join(notes)


def choices(rows: pd.DataFrame) -> pd.DataFrame:
    """What following each validator would have cost: an epoch of a run, a method, K or eps of a task and seed.

    Returns:
        A row per choice and validator: question ("epoch", "method", "K", "eps"), task, seed, of (how many there were to
        choose from), validator, rank (Spearman's correlation with mAP; missing for fewer than three), regret (mAP of
        the best minus mAP of the chosen one) and gain (mAP of the chosen one minus mAP of the usual one, see USUAL;
        missing where that was not run). So also for `usual` itself and for `coin`, the mean over all.
    """
    if rows.empty:
        return pd.DataFrame(columns=CHOICE)
    final = rows["epoch"] == rows.groupby("run")["epoch"].transform("max")
    last, k_means = rows[final], rows.loc[final, "method"].map(has_clusters)
    radius = ~k_means & last["variant"].str.fullmatch(r"(rho \S+)?")
    questions = {
        "epoch": (rows, ["run"], final),
        "method": (last, ["task", "variant", "clusters", "seed"], last["method"] == "mmt"),
        "K": (last[k_means], ["task", "method", "variant", "seed"], last["usual"]),
        "eps": (last[radius], ["task", "method", "seed"], last["usual"]),
    }
    found = []
    for question, (candidates, fixed, usual) in questions.items():
        for _, group in candidates.groupby(fixed):
            if len(group) < 2:
                continue
            mean_ap, scores = group["mAP"], group[list(VALIDATORS)].astype(float).dropna(axis=1, how="all")
            ranks = scores.assign(mAP=mean_ap).corr("spearman", min_periods=3)["mAP"]
            chosen = {"usual": mean_ap[usual[group.index]].mean(), "coin": mean_ap.mean()}
            chosen |= {name: mean_ap[scores[name].idxmax()] for name in scores}
            named = [question, group["task"].iloc[0], group["seed"].iloc[0], len(group)]
            for name, score in chosen.items():
                regret, gain = mean_ap.max() - score, score - chosen["usual"]
                found.append([*named, name, ranks.get(name, np.nan), regret, gain])
    return pd.DataFrame(found, columns=CHOICE)
