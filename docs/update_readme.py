"""Bring the README and docs/results.md in line with `results/`: tables, sentences and pictures follow from its files.

    python docs/update_readme.py [--runs runs/quick]     # --runs: copy a folder's results and draw its curves first

`results/<profile>.json` is the list of all results of `mmt run --profile <profile>` (its results.json),
`results/suite_<profile>.json` what `benchmarks/measure_suite.py` measured of it, `results/<matrix>.json` what
`mmt batch` kept of a matrix by `--results`.
"""

from __future__ import annotations

import argparse
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from mmtlib import figures
from mmtlib.config import MAIN_METHODS, METHODS, SEEDS, TASKS, make_settings
from mmtlib.data.checks import PUBLISHED
from mmtlib.files import read_json, write_atomic, write_json
from mmtlib.results import ablations, errors_left, findings, matrix_results, tables, validators
from mmtlib.results.ablations import crossing, differences, groups, leads, published_leads
from mmtlib.results.comparison import published_twins
from mmtlib.results.runs import read_runs
from mmtlib.results.tables import paired, readable
from mmtlib.world import DOMAINS, pictures, render, world

REPOSITORY = Path(__file__).resolve().parents[1]
DOCS, RESULTS, README = REPOSITORY / "docs", REPOSITORY / "results", REPOSITORY / "README.md"
MARGIN = 24
PROFILES = {
    "quick": "`quick`: plaza→station, 3 seeds (`make run`)",
    "standard": "`standard`: all four tasks, 5 seeds (`make run PROFILE=standard`)",
}


def results_section() -> str:
    """The README's tables and what they say, from the committed result files."""
    parts = []
    for profile, title in PROFILES.items():
        file = RESULTS / f"{profile}.json"
        if not file.exists():
            parts.append(f"**{title}**: not run yet.")
            continue
        results = read_json(file)
        shown = readable(tables.table(results))
        whole = len(TASKS[profile]) * len(MAIN_METHODS) * len(SEEDS[profile])
        if len(results) < whole:
            title += f"; {len(results)} of {whole} runs so far, the others are not run yet"
        table = _markdown(shown.columns, shown.itertuples(index=False))
        parts += [f"**{title}**", table, tables.GAP, _paired(results), *findings.sentences(results)]
    return "\n\n".join(part for part in parts if part)


def _markdown(header: Iterable[str], rows: Iterable[Iterable]) -> str:
    """A table."""
    header = list(header)
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def _score(row: dict | None) -> str:
    """The mAP of a row of `tables.table`, and in brackets the share of the gap that it closes."""
    if row is None:
        return "not run"
    gap = f" ({tables.spread(row['gap'], row['gap_sd'], 0)} %)" if row["gap_seeds"] else ""
    return f"{tables.spread(row['mAP'], row['mAP_sd'])}{gap}"


def _paired(results: list[dict]) -> str:
    """MMT minus hard labels per task and over all, where there is more than one task."""
    differences = paired(results, "mmt", "hard").to_dict("records")
    if len(differences) < 2:
        return ""
    rows = ((row["task"], findings.difference(row)) for row in differences)
    return _markdown(["MMT minus hard labels, paired by seed", ""], rows)


LABELLED = ("hard", "mmt_without_soft_losses", "mmt")
STEPS = (("mmt", "hard"), ("mmt", "mmt_without_soft_losses"))


def noise_section() -> str:
    """mAP of the methods at each rate of dealt label noise of both kinds, and from where on one leads another."""
    sweep, biased = (matrix_results.read(name, RESULTS) for name in ("phase_diagram", "camera_noise"))
    if not sweep.runs:
        return sweep.note
    picture = "![mAP against the share of labels replaced](noise_sweep.png)"
    parts = ["In brackets the share of the gap that is closed. A label is replaced by any other one:"]
    parts += [*_noise(sweep.results), picture]
    if biased.runs:
        whole = [r for r in sweep.results if not r["config"]["noise_rate"]]
        parts += ["It is replaced by one of the same camera:", *_noise([*whole, *biased.results])]
    return "\n\n".join(parts)


def _noise(results: list[dict]) -> list[str]:
    """A table over the rates of one kind of noise, and what it says."""
    bounds = [r for r in read_json(RESULTS / "quick.json") if r["method"] in ("direct", "supervised")]
    lines = []
    for rate in sorted({result["config"]["noise_rate"] for result in results}):
        chosen = [r for r in (*bounds, *results) if r["config"]["noise_rate"] in (0, rate)]
        rows = [r for r in tables.table(chosen).to_dict("records") if bool(r["variant"]) == bool(rate)]
        found = {row["method"]: row for row in rows}
        lines.append([f"{rate:.0%}", *(_score(found.get(method)) for method in LABELLED)])
    table = _markdown(["labels replaced", *(METHODS[m].title for m in LABELLED)], lines)
    leads = [crossing(results, *pair) for pair in (*STEPS, ("mmt_without_soft_losses", "hard"))]
    return [table, *(f"{lead}." for lead in leads if lead)]


def clusters_section() -> str:
    """mAP for each task and K, and what one method gains on another at half, once and twice the profile's K."""
    table = matrix_results.read("clusters", RESULTS)
    if not table.runs:
        return table.note
    results = matrix_results.with_main_rows(table.results, RESULTS)
    scores = {
        (row["task"], row["clusters"], row["method"]): row
        for row in tables.table(results).to_dict("records")
        if row["method"] in LABELLED
    }
    places = list(dict.fromkeys((task, k) for task, k, _ in scores))
    lines = ([task, k, *(_score(scores.get((task, k, method))) for method in LABELLED)] for task, k in places)
    shown = _markdown(["task", "K", *(METHODS[m].title for m in LABELLED)], lines)
    lines = []
    for times, group in ablations.by_times_k(results).items():
        found = (paired(group, *pair, by=["variant"]).to_dict("records") for pair in STEPS)
        lines.append([f"{times:g}", *(findings.difference(row) for (row,) in found)])
    titles = (f"{METHODS[a].title} minus {METHODS[b].title}" for a, b in STEPS)
    return "\n\n".join([shown, "Over all tasks:", _markdown(["times the profile's K", *titles], lines)])


def rows_section(name: str, with_main: bool = False) -> str:
    """The rows of a matrix against MMT, task by task: what each knows, its rate, its distance; and what is decided.

    Args:
        with_main: Beside them the rows of `standard.json`.
    """
    matrix = matrix_results.read(name, RESULTS)
    if not matrix.runs:
        return matrix.note
    parts = []
    every = matrix_results.with_main_rows(matrix.results, RESULTS) if with_main else matrix.results
    for task in dict.fromkeys((r["source"], r["target"]) for r in every):
        results = [r for r in every if (r["source"], r["target"]) == task]
        methods = [m for m in dict.fromkeys(r["method"] for r in results) if m != "mmt"]
        rows = differences(results, methods)
        own = next(row for row in tables.table(results).to_dict("records") if row["method"] == "mmt")
        title = f"**{'→'.join(task)}**, {int(rows['n'].min())} seeds; differences to MMT's mAP of "
        parts.append(f"{title}{tables.spread(own['mAP'], own['mAP_sd'])} (intervals by Bonferroni)")
        table = ablations.readable(rows)
        parts.append(_markdown(["", *table.columns[1:]], table.to_numpy().tolist()))
        parts.append("\n".join(f"- {side}: {'; '.join(titles)}." for side, titles in groups(rows).items() if titles))
    return "\n\n".join([*parts, f"```\n{matrix.note}\n```"])


def lead_section() -> str:
    """What DBSCAN does to MMT's lead over hard labels, here and as published."""
    results = matrix_results.with_main_rows(matrix_results.read("whose_gain", RESULTS).results, RESULTS)
    parts = []
    lead, theirs = leads(results), published_leads().set_index("task").loc["all"]
    if len(lead):
        row = lead.iloc[-1]
        ours = {name: _interval(*(row[name + end] for end in ("", "_low", "_high"))) for name in theirs.index}
        parts.append(
            f"MMT minus hard labels: {ours['kmeans']} mAP with k-means, {ours['dbscan']} with DBSCAN "
            f"(published means over six tasks: {theirs['kmeans']:+.1f} and {theirs['dbscan']:+.1f}); "
            f"the change is {_interval(row['change'], row['change_low'], row['change_high'])}."
        )
    return "\n\n".join(parts)


def errors_section() -> str:
    """The wrong pairs of images that each method leaves, by cause."""
    wrong, note = errors_left.read(RESULTS)
    if wrong.empty:
        return note
    shares = errors_left.relative(wrong)
    table = shares.pivot_table(index=["kind", "cause"], columns="method", values="left", sort=False).drop(
        columns="hard"
    )
    lines = [
        [f"false {kind}s, {cause}", *(f"{x:.2f}" for x in row)]
        for (kind, cause), row in zip(table.index, table.to_numpy())
    ]
    shown = _markdown(["", *(METHODS[m].title for m in table)], lines)
    return f"As a share of those of hard labels, mean over seeds.\n\n{shown}\n\n```\n{note}\n```"


def choices_section() -> str:
    """What choosing an epoch, a method or K without labels costs."""
    made, note = validators.read_choices(RESULTS)
    if made.empty:
        return note
    means = made.groupby(["question", "validator"], sort=False)[["rank", "regret", "gain"]].mean().astype(float)
    names = {"usual": "always the usual one", "coin": "a coin"} | validators.VALIDATORS
    lines = [
        [question, names[name], *tables.dashed(row, ".2f")]
        for (question, name), row in zip(means.index, means.to_numpy())
    ]
    header = ["choice of", "by", "rank correlation with mAP", "regret in mAP", "gain over the usual choice"]
    runs = (
        "K: the plaza→station runs of matrices/clusters.yaml, and those of `quick` with the profile's K, in one folder."
    )
    return f"{_markdown(header, lines)}\n\n{runs}\n\n```\n{note}\n```"


def _interval(mean: float, low: float, high: float) -> str:
    return f"{mean:+.1f} ({low:+.1f} to {high:+.1f})"


SPEED = (  # benchmark, what it is, its row of ours, the row of the plain way
    (
        "jaccard",
        "k-reciprocal Jaccard distance + DBSCAN",
        "ours: Jaccard + DBSCAN",
        "dense loops + scikit-learn",
    ),
    ("retrieval", "mAP + CMC from features", "ours: counting", "sorting"),
    ("kmeans", "k-means", "ours", "scikit-learn"),
    ("step small", "MMT steps, small network", "ours", "plain loop"),
    ("step resnet50", "MMT steps, ResNet-50 at 256×128", "ours", "plain loop"),
)


def speed_section() -> str:
    """Each hot path against the plain way of doing it, as `mmt bench` measured them in one run."""
    file = RESULTS / "bench_market_jaccard_retrieval_kmeans.json"
    if not file.exists():
        return "Not run with this version of the code yet."
    record, lines = read_json(file), []
    for name, title, own, plain in SPEED:
        if (found := record["benchmarks"].get(name)) is None:
            continue
        chosen = [key for key in found["arguments"] if key in "NQGDK" or key == "steps"]
        size = ", ".join(f"{key} = {found['arguments'][key]}" for key in chosen)
        rows, product = found["rows"], found["rows"].get("bare float32 product")
        other = f"{plain}: {_cost(rows[plain])}" if plain in rows else "not run"
        lines.append([title, size, _cost(rows[own]), _cost(product) if product else "–", other])
    hardware = record["hardware"]
    where = f"{hardware['cores']} cores of an {hardware['gpu'] or hardware['cpu']}"
    table = _markdown(["", "size", "ours", "bare matrix product", "the plain way"], lines)
    return f"{table}\n\n`{record['command']}` on {where}; memory is what came on top of the features."


def _cost(row: dict[str, float]) -> str:
    """Seconds, and memory where it is worth a word."""
    return f"{row['seconds']:.1f} s" + (f", {row['peak_mb']:.0f} MB" if row["peak_mb"] >= 50 else "")


def minutes(profile: str) -> str:
    """How long a profile took, with and without bfloat16 instructions, or that it was not measured."""
    found = {}
    for name, words in (("", ""), ("_plain", " without bfloat16")):
        file = RESULTS / f"suite_{profile}{name}.json"
        if file.exists():
            record = read_json(file)
            found[f"{record['minutes']:.1f} min{words}"] = record["peak_memory_gb"]
    return f"{', '.join(found)}; {max(found.values()):.1f} GB of memory" if found else "not measured yet"


def shape_results() -> list[dict]:
    """The results that the README shows: `standard`, else `quick`; and camera norm on their tasks."""
    files = [RESULTS / f"{profile}.json" for profile in ("standard", "quick")]
    main = next((read_json(file) for file in files if file.exists()), [])
    file, known = RESULTS / "whose_gain.json", {tables.task_name(r) for r in main}
    others = read_json(file)["results"] if file.exists() else []
    return main + [r for r in others if r["method"] == "direct_camera_norm" and tables.task_name(r) in known]


def shape_section() -> str:
    """The four tasks as one table: scores, shares of the gap, and the published shares."""
    rows = tables.table(shape_results()).to_dict("records")
    found = {(row["task"], row["method"]): row for row in rows if not row["variant"]}
    theirs = {key: f"{share:.0f} %" for key, share in published_twins().items()}
    lines = []
    for task in dict.fromkeys(row["task"] for row in rows):
        ends = [tables.spread(found[task, m]["mAP"], found[task, m]["mAP_sd"]) for m in ("direct", "supervised")]
        shares = " / ".join(theirs.get((task, m), "–") for m in ("hard", "mmt"))
        lines.append([task, ends[0], *(_score(found.get((task, m))) for m in LABELLED), ends[1], shares])
    header = ["task", "direct", *(METHODS[m].title for m in LABELLED), "supervised", "published: hard / MMT"]
    return _markdown(header, lines)


def worlds_section() -> str:
    """The census of the drawn domains beside that of the data sets whose miniatures they are."""
    lines = []
    for domain, real in (("plaza", "market1501"), ("station", "dukemtmc"), ("city", "msmt17")):
        place, theirs = world(domain), PUBLISHED[real]
        seen = place.census.train_ids + place.census.test_ids + place.census.distractor_ids
        counts = Counter(part for who in range(seen) for part, *_ in pictures(place, who))
        counts["gallery"] += place.census.junk
        ours = (
            counts["train"],
            place.census.train_ids,
            counts["query"],
            counts["gallery"],
            place.census.cameras,
        )
        rows = {
            domain: ours,
            real: (theirs.images[0], theirs.identities[0], *theirs.images[1:], theirs.cameras),
        }
        for name, (train, people, query, gallery, cameras) in rows.items():
            lines.append([name, f"{train:,}", people, f"{train / people:.1f}", f"{query:,}", f"{gallery:,}", cameras])
    header = ["", "training images", "people", "images a person", "queries", "gallery", "cameras"]
    return _markdown(header, lines)


def results_page() -> str:
    """`docs/results.md`."""
    parts = [
        "# Results",
        "Made from the files in `results/` by `python docs/update_readme.py`. mAP and CMC in percent on the target's "
        "test images, mean ± standard deviation over network seeds; all scores are those of the last epoch.",
        "## The worlds",
        worlds_section(),
        "## Methods",
        results_section(),
        "![mAP over the epochs of adaptation](learning_curves_quick.png)",
        "## Wrong labels of a known share",
        noise_section(),
        "## Half and twice the clusters",
        clusters_section(),
        "## MMT without its parts, and the alternatives",
        rows_section("ablations"),
        "## Whose gain is it?",
        rows_section("whose_gain", with_main=True),
        lead_section(),
        "## Which wrong pairs are left",
        errors_section(),
        "## Choosing without labels",
        choices_section(),
        "## How fast it is",
        time_section(),
        speed_section(),
        gpu_section(),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def time_section() -> str:
    """Where the minutes of `quick` go, and the floor: its operations at the rate of one large convolution."""
    lines = []
    for name in ("suite_quick", "suite_quick_plain"):
        file = RESULTS / f"{name}.json"
        if file.exists() and "floor_seconds" in (record := read_json(file)):
            stages, cores = record["core_seconds_per_stage"], record["hardware"]["cores"]
            trained = (stages["source"] + stages["train"]) / cores
            others = sum(stages[stage] for stage in ("cluster", "extract", "score")) / cores
            row = [
                record["command"],
                f"{record['minutes']:.1f} min",
                f"{record['tera_operations']:.0f} tera-operations",
            ]
            row += [
                f"{record['giga_operations_per_second_and_core']:.0f} a core",
                f"{record['floor_seconds']:.0f} s",
            ]
            lines.append([*row, f"{trained:.0f} s ({trained / record['floor_seconds']:.1f} ×)", f"{others:.0f} s"])
    header = [
        "command",
        "in all",
        "work of the trainings",
        "giga-operations per second",
        "floor",
        "training steps",
    ]
    return _markdown([*header, "clustering, extraction, scores"], lines) if lines else ""


def gpu_section() -> str:
    """What was measured on a GPU: the hot paths beside the same machine's processors, the step, the day's pieces."""
    files = [RESULTS / f"{name}.json" for name in ("bench_market", "bench_market_16_cores", "gpu_step", "gpu_day")]
    if not all(file.exists() for file in files):
        return "On a GPU: not run."
    bench, processors, step, day = map(read_json, files)
    paths = [
        [title, *(f"{record['benchmarks'][name]['rows'][row]['seconds']:.3f} s" for record in (bench, processors))]
        for name, title, row in (*(each[:3] for each in SPEED[:3]), ("retrieval", "re-ranking", "ours: re-ranking"))
    ]
    variants, parts = [], []
    for network, found in step["networks"].items():
        parts.append(f"{network}: " + ", ".join(f"{name} {ms:.1f}" for name, ms in found["parts_ms"].items()))
        for name, variant in found["variants"].items():
            floor = f"{variant['times_floor']:.1f}" if "times_floor" in variant else "–"
            row = [f"{variant['ms']:.1f} ms", f"{variant['images_per_second']:,.0f}", floor]
            variants.append([network, name, found["precision"], *row])
    pieces, epoch = [], {}
    for name, piece in day["pieces"].items():
        kind = {"source": "source", "adapt": "mmt"}.get(name)
        own = [each for each in piece["trainings"] if each["run"].split("-")[0] == kind]
        epoch.update((name, each["seconds_per_epoch"]) for each in own)
        stages = ", ".join(f"{stage} {each:.1f} s" for stage, each in epoch.get(name, {}).items())
        seconds, command = f"{piece['seconds']:.0f} s", f"`{piece['command']}`"
        pieces.append([name, piece["status"], seconds, stages or "–", command])
    gpu, note = step["hardware"]["gpu"], step.get("note", "")
    said = [
        f"On an {gpu} (`{bench['command']}`) and on the cores of such a machine, with N, Q, G, D and K as above:",
        _markdown(["", "GPU", f"{processors['hardware']['cores']} cores"], paths),
        f"The MMT step on an {gpu} (`{step['command']}`). {note}",
        _markdown(["network", "variant", "precision", "a step", "images per second", "× floor"], variants),
        f"Milliseconds of the parts, one kernel after another: {'; '.join(parts)}.",
        "Pieces of `python benchmarks/gpu_day.py` that were run there:",
        _markdown(["piece", "ended", "in all", "an epoch", "command"], pieces),
    ]
    replayed = step["networks"].get("resnet50", {"variants": {}})["variants"].get("CUDA graph")
    if replayed and "source" in epoch:
        paper = make_settings("paper")
        steps = paper.epochs * paper.iterations * replayed["ms"] / 1e3
        whole = (2 * paper.source_epochs * epoch["source"]["train"] + steps) / 60
        said.append(
            "By these seconds the training steps of one `paper` run of MMT, with both its pre-trainings, would take "
            f"{whole:.0f} minutes: computed, not run."
        )
    return "\n\n".join(said)


def updated(text: str) -> str:
    """The README with everything between its markers made anew."""
    blocks = {"shape": shape_section(), **{f"minutes {name}": minutes(name) for name in ("smoke", *PROFILES)}}
    for name, block in blocks.items():
        inline = name.startswith("minutes")
        pattern = re.compile(rf"(<!-- {name} -->).*?(<!-- end -->)", re.DOTALL)
        filler = block if inline else f"\n\n{block}\n\n"
        text, count = pattern.subn(lambda match: match[1] + filler + match[2], text)  # noqa: B023 (used at once)
        if count != 1:
            raise ValueError(f"README.md has {count} blocks '<!-- {name} --> … <!-- end -->', expected 1")
    return text


def contact_sheet(domain: str, rows: int, **look: Any) -> Image.Image:
    """The people of a domain that most cameras saw, before each of these; grey where a camera did not see them."""
    place = world(domain, **look)
    seen = [{camera for *_, camera, _ in pictures(place, who)} for who in range(place.census.train_ids)]
    grey = np.full((*place.size, 3), 222, np.uint8)
    tiles = [
        [render(domain, who, c, **look) if c in seen[who] else grey for c in range(place.census.cameras)]
        for who in sorted(range(len(seen)), key=lambda who: -len(seen[who]))[:rows]
    ]
    framed = np.pad(tiles, ((0, 0), (0, 0), (2, 0), (2, 0), (0, 0)), constant_values=255)
    return Image.fromarray(np.vstack([np.hstack(row) for row in framed]))


def domains() -> Image.Image:
    """Contact sheets of the three domains side by side: a row per person, a column per camera."""
    sheets = {name: contact_sheet(name, rows=4, size=(128, 64), scale="tiny") for name in DOMAINS}
    width = sum(sheet.width for sheet in sheets.values()) + MARGIN * (len(sheets) + 1)
    page = Image.new("RGB", (width, max(s.height for s in sheets.values()) + 3 * MARGIN), "white")
    pen, font, x = ImageDraw.Draw(page), ImageFont.load_default(size=22), MARGIN
    for name, sheet in sheets.items():
        pen.text((x, MARGIN // 2), name, fill="black", font=font)
        page.paste(sheet, (x, 2 * MARGIN))
        x += sheet.width + MARGIN
    return page


def main() -> None:
    """Copy results where runs are given, draw the pictures, rewrite the README and docs/results.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, help="a folder of finished runs, such as runs/quick")
    options = parser.parse_args()
    domains().save(DOCS / "domains.png", optimize=True)
    figures.use_style()
    if sweep := matrix_results.read("phase_diagram", RESULTS).results:
        ax = figures.scores_against(sweep, "noise_rate", [*LABELLED, "direct"])
        ax.figure.savefig(DOCS / "noise_sweep.png", dpi=150, bbox_inches="tight")
    if options.runs:
        runs = read_runs(options.runs)
        profile = runs[0].result["profile"]
        write_json(RESULTS / f"{profile}.json", [run.result for run in runs])
        if profile == "quick":  # the README shows one picture
            ax = figures.learning_curves(runs, "mAP")
            ax.figure.savefig(DOCS / "learning_curves_quick.png", dpi=150, bbox_inches="tight")
    if results := shape_results():
        ax = figures.gap_shares(results, published_twins())
        ax.figure.savefig(DOCS / "shape.png", dpi=150, bbox_inches="tight")
    write_atomic(DOCS / "results.md", results_page())
    write_atomic(README, updated(README.read_text(encoding="utf-8")))


if __name__ == "__main__":
    main()
