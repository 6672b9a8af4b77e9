"""The command line: `mmt` or `python -m mmtlib`. Exit status 0, 1 (failed) or 2 (wrong usage or input)."""

import argparse
import codecs
import io
import os
import shlex
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmtlib import InputError, __version__
from mmtlib.config import (
    EMBEDDED_DOMAINS,
    METHODS,
    PROFILES,
    Settings,
    guessed_clusters,
    has_clusters,
    make_settings,
    parse_override,
)
from mmtlib.course.starter import make_folder


def _explained(error: BaseException) -> tuple[str, int]:
    """The message and the exit status that an error ends in."""
    if isinstance(error, KeyboardInterrupt):
        return "stopped; finished epochs are kept, and the same command goes on from there", 1
    if isinstance(error, (InputError, FileNotFoundError, PermissionError, NotADirectoryError)):
        return str(error), 2
    if isinstance(error, ImportError):
        return f"{error}: some package is missing, or torch and torchvision do not fit: make install", 1
    if isinstance(error, (RuntimeError, FloatingPointError, OSError)):
        return f"failed: {error}", 1
    return f"failed: unforeseen {type(error).__name__}: {error} (the same command with --debug says where)", 1


def _plain(error: UnicodeError) -> tuple[str, int]:
    """What a console that lacks a character shows instead."""
    text = error.object[error.start : error.end]
    plain = dict(zip("→λα−–±×…≤", "-> lambda alpha - - +- x ... <=".split()))
    return "".join(plain.get(letter, "?") for letter in text), error.end


codecs.register_error("mmtlib-plain", _plain)


def _settings_of(checkpoint: Path, options: argparse.Namespace) -> Settings:
    """How to use a network file; what the command line changes of its training is said."""
    from mmtlib.networks import settings_of

    settings, notes = settings_of(checkpoint, options.profile, dict(map(parse_override, options.set)))
    _say(f"{checkpoint.name}: images of {settings.height}x{settings.width}, precision {settings.precision}")
    for note in notes:
        _say(f"note: {checkpoint.name} was {note}")
    return settings


def _scores(result: dict[str, Any]) -> str:
    """Scores in one line, with the number of queries behind them where that is not all."""
    line = " ".join(f"{name} {result[name]:.1f}" for name in ("mAP", "top1", "top5", "top10"))
    if result.get("scored") == result.get("queries"):
        return line
    return f"{line}, over {result['scored']:,} of {result['queries']:,} queries: {result['unscored']}"


def _run(options: argparse.Namespace) -> None:
    make_settings(options.profile)  # refuses an unknown profile before anything else is imported
    from mmtlib.course import lessons
    from mmtlib.files import home
    from mmtlib.pages.report import write_report
    from mmtlib.runs.parallel import run_all

    lessons.notebook_paths()  # refuses a folder without them before anything is trained
    start = time.monotonic()
    out = (options.out or home() / "runs" / options.profile).absolute()
    _say(f"1/3 training: profile {options.profile}, results in {out}")
    run_all(lessons.suite(options.profile), out, profile=options.profile)
    _say("2/3 notebooks")
    lessons.execute_all(out, options.profile, _say)
    _say("3/3 report")
    page = write_report(out, options.asked)
    _say(f"done in {(time.monotonic() - start) / 60:.1f} min: {page}")


def _adapt(options: argparse.Namespace) -> None:
    given = {name: getattr(options, name) for name in ("source", "target", "method", "seed")}
    given |= {"same_domain": options.same_domain, "target_labels": str(options.target_labels or "")}
    given |= dict(map(parse_override, options.set))
    settings = make_settings(options.profile, **given)
    from mmtlib.data.tasks import census, target_labels
    from mmtlib.runs.run import run

    own = settings.target not in EMBEDDED_DOMAINS and options.profile != "paper"
    if settings.target_labels:
        labels = target_labels(settings)
        settings = settings.replace(clusters=len(set(labels[labels >= 0].tolist())))
        _say(f"K = {settings.clusters}: the clusters of {settings.target_labels}, in every epoch")
    elif own and has_clusters(settings.method) and "clusters" not in given:
        images = census(settings.target, settings).images
        settings = settings.replace(clusters=guessed_clusters(images))
        why = f"one cluster per 26 of {images:,} images"
        _say(f"K = {settings.clusters}: {why}; --set clusters=K takes another")

    def progress(stage: str, done: int, total: int) -> None:
        _say(f"{stage}: epoch {done}/{total}")

    folder = run(settings, options.out.absolute(), progress, profile=options.profile)
    unscored = f"not scored: {settings.target} has no queries and gallery"
    print(unscored if folder.result["mAP"] is None else _scores(folder.result))
    print(folder.path / "result.json")


def _evaluate(options: argparse.Namespace) -> None:
    settings = _settings_of(options.checkpoint, options)
    from mmtlib.evaluation import evaluate_file

    print(_scores(evaluate_file(options.checkpoint, options.data, settings, rerank=options.rerank)))


def _report(options: argparse.Namespace) -> None:
    from mmtlib.pages.report import write_report

    print(write_report(options.folder.absolute(), options.asked))


def _book(options: argparse.Namespace) -> None:
    from mmtlib.pages.book import make_book

    print(make_book(options.folder.absolute()))


def _check_data(options: argparse.Namespace) -> int:
    from mmtlib.data.checks import check_dataset

    report = check_dataset(options.path)
    print(report)
    return int(not report.ok)


def _noise(options: argparse.Namespace) -> None:
    ours = options.run is not None
    if ours == (options.images is not None) or ours == (options.checkpoint is not None):
        options.usage("give --run, which has a network of its own, or --images with its --checkpoint")
    if ours and options.labels is not None:
        options.usage("--labels goes with --images: a run's data set has its identities")
    from mmtlib.pages.noise_page import write_noise_page
    from mmtlib.pages.subjects import subject_of_images, subject_of_run

    if ours:
        subject = subject_of_run(options.run, options.clusters)
    else:
        settings = _settings_of(options.checkpoint, options)
        given = {"labels": options.labels, "clusters": options.clusters}
        subject = subject_of_images(options.images, options.checkpoint, settings, **given)
    print(write_noise_page(subject, options.out.absolute(), options.asked))


def _embed(options: argparse.Namespace) -> None:
    settings = _settings_of(options.checkpoint, options)
    from mmtlib.features import embed, write_csv

    out = options.out.absolute()
    found = embed(options.images, options.checkpoint, settings, out, _say)
    print(write_csv(found, out / "features.csv") if options.format == "csv" else out / "features.npz")


def _search(options: argparse.Namespace) -> None:
    if (options.folder is None) == (options.images is None):
        options.usage("give --in, a folder of `mmt embed`, or --images with their --checkpoint")
    if options.images is not None and options.checkpoint is None:
        options.usage("--images needs the --checkpoint to embed them with; or embed first, and give --in")
    from mmtlib.features import embed, read_features, search, weights_of
    from mmtlib.pages.search_page import write_search_page

    out = options.out.absolute()
    if options.folder is not None:
        known = read_features(options.folder)
    else:
        settings = _settings_of(options.checkpoint, options)
        known = embed(options.images, options.checkpoint, settings, out, _say)
    how = {"top": options.top, "rerank": options.rerank, "camera_rule": options.camera_rule}
    ranks = search(known, options.query, options.checkpoint, **how)
    explain = weights_of(known, options.checkpoint) if options.explain else None
    note = "All images are searched."
    if not options.query:
        note = "The data set's queries are searched for in its gallery."
    if options.camera_rule or not options.query:
        note += " Answers of the query's identity and camera are left out."
    print(write_search_page(known, ranks, out, options.asked, note, explain))


def _batch(options: argparse.Namespace) -> int:
    places = (options.scheduler, options.sbatch, options.status, options.job)
    if sum(place is not None for place in places) > 1:
        options.usage("--scheduler, --sbatch, --status and --job exclude each other")
    if options.status is not None:
        from mmtlib.matrix.status import status

        print(status(options.status.absolute()))
        return 0
    if options.out is None or (options.matrix is None) == (options.job is None):
        options.usage("give MATRIX and --out, --job and --out, or --status alone")
    if options.slots is not None and options.slots < 1:
        options.usage(f"--slots {options.slots}: expected 1 or more")
    from mmtlib.matrix import runner

    out = options.out.absolute()
    failed = {}
    if options.job is not None:
        runner.run_job(out, options.job)
    elif options.sbatch is not None:
        print(runner.write_slurm(options.matrix, out, options.sbatch))
    else:
        place = {"slots": options.slots, "scheduler": options.scheduler, "results": options.results}
        failed = runner.run_batch(options.matrix, out, _say, **place)
    for job, error in failed.items():
        print(f"mmt: failed: {job.title}: {error}", file=sys.stderr)
    return int(bool(failed))


def _validate(options: argparse.Namespace) -> None:
    from mmtlib.results.validators import choices, validate

    made = choices(validate(options.runs, options.out, _say))
    regret, gain = "mAP below the best choice (regret)", "above the usual one (gain)"
    print(f"Spearman's rank correlation with mAP; {regret}, {gain}")
    means = made.groupby(["question", "validator"], sort=False)[["rank", "regret", "gain"]].mean()
    print(means.round(2).to_string() if len(means) else "no two epochs, methods, K or eps to choose from")
    print(options.out)


def _init(options: argparse.Namespace) -> None:
    if options.student and options.teacher:
        options.usage("--student and --teacher exclude each other")
    edition = "student" if options.student else "teacher" if options.teacher else ""
    files = make_folder(options.folder, edition)
    print(f"{len(files)} files in {options.folder}. There, `mmt run --profile smoke`")
    print("checks that everything works, and `jupyter lab notebooks` opens the notebooks.")


def _grade(options: argparse.Namespace) -> None:
    from mmtlib.course.answers import grade
    from mmtlib.course.checks import GRADED
    from mmtlib.files import write_atomic

    table = grade(options.folder, GRADED)
    print(table.to_string())
    if options.out is not None:
        print(write_atomic(options.out, table.to_csv()))


def _slides(options: argparse.Namespace) -> None:
    from mmtlib.pages.slides import write_slides

    print(*write_slides(options.folder.absolute()), sep="\n")


def _bench(options: argparse.Namespace) -> None:
    folder = Path(__file__).resolve().parents[1] / "benchmarks"
    if not (folder / "bench").is_dir():
        raise InputError(
            "the benchmarks are no part of the package, and it was not installed from a checkout: call `mmt bench` in "
            "a checkout whose mmtlib is installed by `make install` (or pip install -e .)"
        )
    sys.path.insert(0, str(folder))
    from bench.suite import run

    print(run(options.size, options.only, options.out, baselines=not options.skip_baselines, say=_say))


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


_PROFILE = ("--profile", "P", f"one of {', '.join(PROFILES)} (default: quick)", {"default": "quick"})
_NEEDED, _MANY = {"required": True}, {"action": "append", "default": []}
_USE = (  # how a network file is used, where it does not say so itself
    ("--profile", "P", f"where the file does not know: one of {', '.join(PROFILES)}"),
    ("--set", "KEY=VALUE", "override a setting of its training", _MANY),
)
# What a command does, its function, and its arguments: name, what it takes (nothing: a switch), help, and the rest.
COMMANDS = {
    "run": ("all notebooks of a profile, end to end, then the report", _run, (
        _PROFILE,
        ("--out", "DIR", "folder of the runs (default: runs/<profile>)"),
    )),
    "adapt": ("one run: pre-train on the source, adapt to the target, score", _adapt, (
        ("--source", "DATA", "an embedded domain (plaza, station, city) or a folder", _NEEDED),
        ("--target", "DATA", "likewise", _NEEDED),
        ("--method", "M", f"one of {', '.join(METHODS)} (default: mmt)", {"default": "mmt"}),
        ("--seed", "N", "of all random draws (default: 1)", {"default": 1}),
        _PROFILE,
        ("--out", "DIR", "folder of the runs; runs that exist there are not repeated", _NEEDED),
        ("--set", "KEY=VALUE", "override a setting; may be repeated", _MANY),
        ("--same-domain", "", "source and target may be one, as a sanity check"),
        ("--target-labels", "FILE", "train on these instead of clustering: path,cluster, as in an edited clusters.csv"),
    )),
    "evaluate": ("mAP and CMC of a network file on a data set's test images", _evaluate, (
        ("checkpoint", "FILE", "a run's network_1.safetensors, or one of MMT, SpCL, OpenUnReID"),
        ("--data", "DATA", "an embedded domain or a folder", _NEEDED),
        ("--rerank", "", "k-reciprocal re-ranking (k1 = 20, k2 = 6, λ = 0.3)"),
        *_USE,
    )),
    "report": ("results.json and report.html from the finished runs of a folder", _report, (
        ("folder", "DIR", "folder of the runs"),)),
    "book": ("the executed notebooks of a suite as pages for reading offline", _book, (
        ("folder", "DIR", "folder of the runs, such as runs/quick"),)),
    "slides": ("the executed lessons of a suite as slides, a page each", _slides, (
        ("folder", "DIR", "folder of the runs, such as runs/quick"),)),
    "check-data": ("what a data set holds against what it should hold", _check_data, (
        ("path", "FILE", "its folder, the folder's parent, or a CSV file"),)),
    "noise": ("what is wrong with pseudo labels: numbers, figures and a page", _noise, (
        ("--run", "DIR", "the labels of a run: runs/<profile>/cache/<run>"),
        ("--images", "DATA", "instead cluster a folder of images, a data set or an embedded domain"),
        ("--checkpoint", "FILE", "with --images: the network"),
        ("--labels", "FILE", "with --images: identities, as columns path,pid[,camid] of a CSV file"),
        ("--clusters", "N", "k-means with N clusters (default: DBSCAN, the authors' rule)"),
        ("--out", "DIR", "folder of noise.html and the rest", _NEEDED),
        *_USE,
    )),
    "embed": ("features of images by a network, as a file", _embed, (
        ("images", "DATA", "a folder of images, a data set or an embedded domain"),
        ("--checkpoint", "FILE", "the network", _NEEDED),
        ("--out", "DIR", "folder of features.npz; what an interrupt left there is gone on with", _NEEDED),
        ("--format", "F", "npz (default), or csv beside it", {"choices": ("npz", "csv"), "default": "npz"}),
        *_USE,
    )),
    "search": ("the images that are most alike to a query, as a table and a page", _search, (
        ("query", "FILE", "images to search for (default: the data set's own queries, in its gallery)", {"nargs": "*"}),
        ("--in", "DIR", "a folder of `mmt embed`", {"dest": "folder"}),
        ("--images", "DATA", "instead: a folder of images, a data set or an embedded domain, embedded into --out"),
        ("--checkpoint", "FILE", "the network; with --in: where its weights lie now"),
        ("--top", "N", "answers per query (default: 10)", {"default": 10}),
        ("--rerank", "", "k-reciprocal re-ranking (k1 = 20, k2 = 6, λ = 0.3)"),
        ("--explain", "", "also show where each answer and its query are alike"),
        ("--camera-rule", "", "leave out answers of the query's identity and camera (own queries: always)"),
        ("--out", "DIR", "folder of ranks.csv and search.html", _NEEDED),
        *_USE,
    )),
    "batch": ("all cells of a matrix file, each as an executed notebook", _batch, (
        ("matrix", "FILE", "a YAML file, such as matrices/*.yaml", {"nargs": "?"}),
        ("--out", "DIR", "folder of the batch; what is done there is kept"),
        ("--slots", "N", "processes at a time (default: one per GPU or core)"),
        ("--results", "FILE", "also keep all its results in one file: results/<matrix>.json"),
        ("--scheduler", "ADDRESS", "run on the Dask cluster with this scheduler"),
        ("--sbatch", "FILE", "only write a script for Slurm"),
        ("--status", "DIR", "how far the batch in a folder is"),
        ("--job", "N", "run one job of the batch planned in --out"),
    )),
    "validate": ("what choosing an epoch, a method, K or eps without labels would have cost in mAP", _validate, (
        ("runs", "DIR", "folders of finished runs", {"nargs": "+"}),
        ("--out", "FILE", "the scores of every epoch, as JSON", _NEEDED),
    )),
    "init": ("a folder with the notebooks, to work in without a checkout", _init, (
        ("folder", "DIR", "a new folder, or an empty one"),
        ("--student", "", "without the solutions"),
        ("--teacher", "", "each solution also folded below its exercise"),
    )),
    "grade": ("what a class answered and predicted, as a table", _grade, (
        ("folder", "DIR", "a folder per student, with the *.answers.json of runs/<profile>/notebooks"),
        ("--out", "FILE", "also write the table here, as CSV"),
    )),
    "bench": ("each hot path against its plain baseline and the machine's limits; needs a checkout", _bench, (
        ("--size", "SIZE", "tiny, small (default), market, msmt17 or 100k", {"default": "small"}),
        ("--only", "NAME", "jaccard, retrieval, kmeans, step or scaling; may be repeated (default: all)", _MANY),
        ("--skip-baselines", "", "only our own code"),
        ("--out", "DIR", "folder of the table, the JSON file and the plot (default: results/ of the checkout)"),
    )),
}  # fmt: skip


def _parser() -> argparse.ArgumentParser:
    what = "Mutual Mean-Teaching for person re-ID: learn, run, reproduce."
    parser = argparse.ArgumentParser(prog="mmt", description=what)
    parser.add_argument("--version", action="version", version=f"mmtlib {__version__}")
    parser.add_argument("--debug", action="store_true", help="after a failure, say where it arose")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    types = {"DIR": Path, "FILE": Path, "N": int}
    for command, (what, function, arguments) in COMMANDS.items():
        own = commands.add_parser(command, help=what)
        own.set_defaults(command=function, usage=own.error)
        for name, takes, text, *rest in arguments:
            value = {"metavar": takes, "type": types.get(takes, str)} if takes else {"action": "store_true"}
            own.add_argument(name, help=text, **value | dict(*rest))
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; every error ends in one message, and with `--debug` in a full report before it."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="mmtlib-plain")
    words = list(sys.argv[1:] if arguments is None else arguments)
    options = _parser().parse_args([word for word in words if word != "--debug"])  # it may stand anywhere
    options.asked = shlex.join(["mmt", *words])
    for name, value in vars(options).items():  # a shell leaves `~` as it is in `--out=~/runs`
        if isinstance(value, Path):
            setattr(options, name, Path(os.path.expanduser(value)))
    try:
        return options.command(options) or 0
    except (Exception, KeyboardInterrupt) as error:
        if "--debug" in words:
            traceback.print_exc()
        message, status = _explained(error)
        print(f"mmt: {message}", file=sys.stderr)
        return status


if __name__ == "__main__":
    sys.exit(main())
