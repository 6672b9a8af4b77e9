"""The command line: `mmt` or `python -m mmtlib`. Exit status 0, 1 (failed) or 2 (wrong usage or input)."""

from __future__ import annotations

import argparse
import codecs
import io
import os
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmtlib import InputError, __version__
from mmtlib.config import METHODS, PROFILES, Settings, make_settings, parse_override
from mmtlib.course.starter import make_folder


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; every error ends in one message, and with `--debug` in a full report before it."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="mmtlib-plain")
    words = list(sys.argv[1:] if arguments is None else arguments)
    options = _parser().parse_args([word for word in words if word != "--debug"])  # it may stand anywhere
    for name, value in vars(options).items():  # a shell leaves `~` as it is in `--out=~/runs`
        if isinstance(value, Path):
            setattr(options, name, Path(os.path.expanduser(value)))
    try:
        return options.command(options)
    except (Exception, KeyboardInterrupt) as error:
        if "--debug" in words:
            traceback.print_exc()
        message, status = _explained(error)
        print(f"mmt: {message}", file=sys.stderr)
        return status


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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mmt", description="Mutual Mean-Teaching for person re-ID: learn, run, reproduce."
    )
    parser.add_argument("--version", action="version", version=f"mmtlib {__version__}")
    parser.add_argument("--debug", action="store_true", help="after a failure, say where it arose")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    run = commands.add_parser("run", help="all notebooks of a profile, end to end, then the report")
    _add_profile(run)
    run.add_argument("--out", type=Path, help="folder of the runs (default: runs/<profile>)")
    run.set_defaults(command=_run)

    adapt = commands.add_parser("adapt", help="one run: pre-train on the source, adapt to the target, score")
    adapt.add_argument(
        "--source", required=True, metavar="S", help="an embedded domain (plaza, station, city) or a folder"
    )
    adapt.add_argument("--target", required=True, metavar="T", help="likewise")
    adapt.add_argument(
        "--method", default="mmt", metavar="M", help=f"one of {', '.join(METHODS)} (default: mmt)"
    )
    adapt.add_argument("--seed", type=int, default=1, metavar="N")
    _add_profile(adapt)
    adapt.add_argument(
        "--out", type=Path, required=True, help="folder of the runs; runs that exist there are not repeated"
    )
    adapt.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="override a setting; may be repeated"
    )
    adapt.add_argument(
        "--same-domain", action="store_true", help="source and target may be one, as a sanity check"
    )
    adapt.set_defaults(command=_adapt)

    evaluate = commands.add_parser(
        "evaluate", help="mAP and CMC of a network file on a data set's test images"
    )
    evaluate.add_argument(
        "checkpoint", type=Path, help="a run's network_1.safetensors, or one of MMT, SpCL, OpenUnReID"
    )
    evaluate.add_argument("--data", required=True, help="an embedded domain or a folder")
    evaluate.add_argument(
        "--rerank", action="store_true", help="k-reciprocal re-ranking (k1 = 20, k2 = 6, λ = 0.3)"
    )
    _add_use(evaluate)
    evaluate.set_defaults(command=_evaluate)

    report = commands.add_parser(
        "report", help="results.json and report.html from the finished runs of a folder"
    )
    report.add_argument("folder", type=Path)
    report.set_defaults(command=_report)

    book = commands.add_parser("book", help="the executed notebooks of a suite as pages for reading offline")
    book.add_argument("folder", type=Path, metavar="DIR", help="folder of the runs, such as runs/quick")
    book.set_defaults(command=_book)

    check = commands.add_parser("check-data", help="what a data set holds against what it should hold")
    check.add_argument("path", type=Path, help="its folder, the folder's parent, or a CSV file")
    check.set_defaults(command=_check_data)

    _add_noise(commands)
    _add_batch(commands)

    init = commands.add_parser("init", help="a folder with the notebooks, to work in without a checkout")
    init.add_argument("folder", type=Path, metavar="DIR", help="a new folder, or an empty one")
    init.set_defaults(command=_init)
    _add_bench(commands)
    return parser


def _add_noise(commands: Any) -> None:
    noise = commands.add_parser("noise", help="what is wrong with pseudo labels: numbers, figures and a page")
    what = noise.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--run", type=Path, metavar="DIR", help="the labels of a run: runs/<profile>/cache/<run>"
    )
    what.add_argument(
        "--images", metavar="DIR", help="cluster a folder of images, a data set or an embedded domain"
    )
    noise.add_argument("--checkpoint", type=Path, metavar="FILE", help="with --images: the network")
    noise.add_argument(
        "--labels", type=Path, metavar="CSV", help="with --images: identities, as columns path,pid[,camid]"
    )
    noise.add_argument(
        "--clusters",
        type=int,
        metavar="K",
        help="k-means with K clusters (default: DBSCAN, the authors' rule)",
    )
    noise.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="folder of noise.html and the rest"
    )
    _add_use(noise)
    noise.set_defaults(command=_noise, usage=noise.error)


def _add_batch(commands: Any) -> None:
    batch = commands.add_parser("batch", help="all cells of a matrix file, each as an executed notebook")
    batch.add_argument(
        "matrix", nargs="?", type=Path, metavar="MATRIX", help="a YAML file, such as matrices/*.yaml"
    )
    batch.add_argument(
        "--out", type=Path, metavar="DIR", help="folder of the batch; what is done there is kept"
    )
    batch.add_argument(
        "--slots", type=int, metavar="N", help="processes at a time (default: one per GPU or core)"
    )
    batch.add_argument(
        "--results",
        type=Path,
        metavar="FILE",
        help="also keep all its results in one file: results/<matrix>.json",
    )
    place = batch.add_mutually_exclusive_group()
    place.add_argument("--scheduler", metavar="ADDRESS", help="run on the Dask cluster with this scheduler")
    place.add_argument("--sbatch", type=Path, metavar="FILE", help="only write a script for Slurm")
    place.add_argument("--status", type=Path, metavar="DIR", help="how far the batch in a folder is")
    place.add_argument("--job", type=int, metavar="N", help="run one job of the batch planned in --out")
    batch.set_defaults(command=_batch, usage=batch.error)


def _add_bench(commands: Any) -> None:
    bench = commands.add_parser(
        "bench", help="each hot path against its plain baseline and the machine's limits; needs a checkout"
    )
    bench.add_argument("--size", default="small", help="tiny, small (default), market, msmt17 or 100k")
    only = "jaccard, retrieval, kmeans, step or scaling; may be repeated (default: all)"
    bench.add_argument("--only", action="append", default=[], metavar="NAME", help=only)
    bench.add_argument("--skip-baselines", action="store_true", help="only our own code")
    out = "folder of the table, the JSON file and the plot (default: results/ of the checkout)"
    bench.add_argument("--out", type=Path, metavar="DIR", help=out)
    bench.set_defaults(command=_bench)


def _add_profile(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--profile", default="quick", metavar="P", help=f"one of {', '.join(PROFILES)} (default: quick)"
    )


def _add_use(parser: argparse.ArgumentParser) -> None:
    """How a network file is used, where it does not say so itself."""
    parser.add_argument(
        "--profile", metavar="P", help=f"where the file does not know: one of {', '.join(PROFILES)}"
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="override a setting of its training"
    )


def _settings_of(checkpoint: Path, options: argparse.Namespace) -> Settings:
    """How to use a network file; what the command line changes of its training is said."""
    from mmtlib.networks import settings_of

    settings, notes = settings_of(checkpoint, options.profile, _overrides(options.set))
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


def _overrides(pairs: Sequence[str]) -> dict[str, Any]:
    return dict(parse_override(pair) for pair in pairs)


def _run(options: argparse.Namespace) -> int:
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
    page = write_report(out, command=f"mmt run --profile {options.profile}")
    _say(f"done in {(time.monotonic() - start) / 60:.1f} min: {page}")
    return 0


def _adapt(options: argparse.Namespace) -> int:
    given = {name: getattr(options, name) for name in ("source", "target", "method", "seed")}
    given |= {"same_domain": options.same_domain} | _overrides(options.set)
    settings = make_settings(options.profile, **given)
    from mmtlib.runs.run import run

    def progress(stage: str, done: int, total: int) -> None:
        _say(f"{stage}: epoch {done}/{total}")

    folder = run(settings, options.out.absolute(), progress, profile=options.profile)
    result = folder.result
    if result["mAP"] is None:
        print(f"not scored: {settings.target} has no queries and gallery")
    else:
        print(_scores(result))
    print(folder.path / "result.json")
    return 0


def _evaluate(options: argparse.Namespace) -> int:
    settings = _settings_of(options.checkpoint, options)
    from mmtlib.evaluation import evaluate_file

    print(_scores(evaluate_file(options.checkpoint, options.data, settings, rerank=options.rerank)))
    return 0


def _report(options: argparse.Namespace) -> int:
    from mmtlib.pages.report import write_report

    print(write_report(options.folder.absolute(), command=f"mmt report {options.folder}"))
    return 0


def _book(options: argparse.Namespace) -> int:
    from mmtlib.pages.book import make_book

    print(make_book(options.folder.absolute()))
    return 0


def _check_data(options: argparse.Namespace) -> int:
    from tqdm import tqdm

    from mmtlib.data.checks import check_dataset

    with tqdm(unit=" images", disable=not sys.stderr.isatty()) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        report = check_dataset(options.path, progress=progress)
    print(report)
    return 0 if report.ok else 1


def _noise(options: argparse.Namespace) -> int:
    if (options.images is None) != (options.checkpoint is None):
        options.usage("--images needs --checkpoint, and --run has a network of its own")
    if options.run is not None and options.labels is not None:
        options.usage("--labels goes with --images: a run's data set has its identities")
    from mmtlib.pages.noise_page import write_noise_page
    from mmtlib.pages.subjects import subject_of_images, subject_of_run

    if options.run is not None:
        subject, asked = subject_of_run(options.run, options.clusters), f"--run {options.run}"
    else:
        settings = _settings_of(options.checkpoint, options)
        given = {"labels": options.labels, "clusters": options.clusters}
        subject = subject_of_images(options.images, options.checkpoint, settings, **given)
        asked = f"--images {options.images} --checkpoint {options.checkpoint}"
    page = write_noise_page(subject, options.out.absolute(), f"mmt noise {asked}")
    print(page)
    return 0


def _batch(options: argparse.Namespace) -> int:
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
    if options.job is not None:
        runner.run_job(out, options.job)
        return 0
    if options.sbatch is not None:
        print(runner.write_slurm(options.matrix, out, options.sbatch))
        return 0
    place = {"slots": options.slots, "scheduler": options.scheduler, "results": options.results}
    failed = runner.run_batch(options.matrix, out, _say, **place)
    for job, error in failed.items():
        print(f"mmt: failed: {job.title}: {error}", file=sys.stderr)
    return 1 if failed else 0


def _init(options: argparse.Namespace) -> int:
    print(
        f"{len(make_folder(options.folder))} files in {options.folder}. There, `mmt run --profile smoke` checks that"
    )
    print("everything works, and `jupyter lab notebooks` opens the notebooks.")
    return 0


def _bench(options: argparse.Namespace) -> int:
    folder = Path(__file__).resolve().parents[1] / "benchmarks"
    if not (folder / "bench").is_dir():
        raise InputError(
            "the benchmarks are no part of the package, and it was not installed from a checkout: call `mmt bench` in "
            "a checkout whose mmtlib is installed by `make install` (or pip install -e .)"
        )
    sys.path.insert(0, str(folder))
    from bench.suite import run

    print(run(options.size, options.only, options.out, baselines=not options.skip_baselines, say=_say))
    return 0


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
