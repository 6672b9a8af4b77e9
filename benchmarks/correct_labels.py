"""What correcting a part of the pseudo labels' errors brings, and how often the suggestions of `mmt noise` are right.

Per seed: MMT is run, its last labels are written as `clusters.csv`, a share of the errors is mended (chosen at random:
wrong images go to their person's largest cluster, surplus clusters of a person into it), and MMT is trained anew on the
labels as they were and as corrected, which stay fixed for all epochs. Identities are used to mend and to score.

    python benchmarks/correct_labels.py --out DIR [--seeds 1 2 3] [--share 0.3]
"""

from __future__ import annotations

import argparse
import sys
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd

from mmtlib.config import make_settings
from mmtlib.data.tables import labels_of, write_table
from mmtlib.data.tasks import open_dataset
from mmtlib.files import home, write_json
from mmtlib.noise.clusters import cluster_table, review_table, second_opinion
from mmtlib.noise.measures import contingency, label_quality, wrong_labels
from mmtlib.pages.subjects import subject_of_run
from mmtlib.results.tables import interval
from mmtlib.runs.provenance import hardware, versions
from mmtlib.runs.run import run


def mended(labels: np.ndarray, pids: np.ndarray, share: float, rng: np.random.Generator) -> tuple[np.ndarray, int]:
    """Labels (N) with a share of their errors put right, and how many errors there were.

    An error is a wrong image (its person is not the commonest of its cluster) or a surplus cluster (its commonest
    person has a larger one).
    """
    labels = labels.copy()
    table = cluster_table(labels, pids).sort_values("size", ascending=False)
    largest = table.drop_duplicates("main").set_index("main")["cluster"].to_dict()
    surplus = [c for c, p in table[["cluster", "main"]].to_numpy() if largest[p] != c]
    errors = [("image", i) for i in np.flatnonzero(wrong_labels(labels, pids))]
    errors += [("cluster", c) for c in surplus]
    before = labels.copy()
    for number in rng.permutation(len(errors))[: round(share * len(errors))]:
        kind, which = errors[number]
        if kind == "image":
            labels[which] = largest.setdefault(pids[which], before.max() + 1 + pids[which])
        else:
            main = table.set_index("cluster")["main"][which]
            labels[labels == which] = largest[main]
    return labels, len(errors)


def suggested(review: pd.DataFrame, labels: np.ndarray, pids: np.ndarray) -> dict[str, dict[str, float]]:
    """Of the clusters that shall be split, how many hold two people with two images or more; of those that shall be
    merged, how many share their commonest person with one that is named; and the same share of all other clusters."""
    told = review.drop_duplicates("cluster").set_index("cluster")["suggestion"]
    table = contingency(labels, pids).toarray()
    mixed, main = np.sort(table, axis=1)[:, -2] > 1, table.argmax(axis=1)
    split = np.array([told[c] == "split" for c in range(len(table))])
    named = {c: [int(w) for w in told[c].split()[1:]] for c in range(len(table)) if told[c].startswith("merge")}
    right = [any(main[o] == main[c] for o in others) for c, others in named.items()]
    torn = [np.sum(main == main[c]) > 1 for c in range(len(table)) if c not in named]
    return {
        "split": {"count": int(split.sum()), "right": _share(mixed[split]), "others": _share(mixed[~split])},
        "merge": {"count": len(named), "right": _share(right), "others": _share(torn)},
    }


def _share(flags) -> float | None:
    return float(np.mean(flags)) if len(flags) else None


def main() -> int:
    """Train and correct, write `results/corrected_labels.json`, say what it brought."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--share", type=float, default=0.3, help="of the errors that are mended")
    parser.add_argument("--profile", default="quick")
    parser.add_argument("--results", type=Path, default=home() / "results", help="folder of the result file")
    options = parser.parse_args()
    rows = []
    for seed in options.seeds:
        settings = make_settings(options.profile, seed=seed)
        first = run(settings, options.out, profile=options.profile)
        subject = subject_of_run(first.path)
        labels, pids = subject.epochs[-1], subject.pids
        other, estimated = second_opinion(subject.features, labels, subject.given)
        review = review_table(subject.names, subject.features, labels, other)
        row = {"seed": seed, "clustered each epoch": first.result["mAP"], "people": len(np.unique(pids))}
        row |= {"k": {"given": subject.given, "estimated": estimated}, "data": subject.data}
        row["suggestions"] = suggested(review, labels, pids)
        better, row["errors"] = mended(labels, pids, options.share, np.random.default_rng(seed))
        for name, chosen in (("uncorrected", labels), ("corrected", better)):
            cluster = dict(zip(subject.names, chosen.tolist()))
            file = write_table(
                options.out / f"{name}_{seed}" / "clusters.csv",
                review.assign(cluster=review["path"].map(cluster)),
            )
            dataset = open_dataset(settings.target, settings)
            assert (labels_of(file, dataset.root, dataset.train.paths)[0] == chosen).all()
            count = len(np.unique(chosen[chosen >= 0]))
            fixed = settings.replace(target_labels=str(file), clusters=count)
            done = run(fixed, options.out, profile=options.profile)
            quality = label_quality(chosen, pids)
            row[name] = {"mAP": done.result["mAP"], "top1": done.result["top1"], "clusters": count}
            row[name] |= {measure: quality[measure] for measure in ("ari", "pairwise_f1", "purity")}
        rows.append(row)
        print(row, flush=True)
    gains = np.array([row["corrected"]["mAP"] - row["uncorrected"]["mAP"] for row in rows])
    record = {
        "command": "python benchmarks/correct_labels.py --out DIR --share {:g} --seeds {}".format(
            options.share, " ".join(map(str, options.seeds))
        ),
        "profile": options.profile,
        "share": options.share,
        "gain": interval(gains) if len(gains) > 1 else {"n": 1, "mean": float(gains[0])},
        "seeds": rows,
        "hardware": hardware(),
        "versions": versions(),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    print(write_json(options.results / "corrected_labels.json", record))
    return 0


if __name__ == "__main__":
    sys.exit(main())
