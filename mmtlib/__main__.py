"""The command line: `mmt` or `python -m mmtlib`. Exit status 0, 1 (failed) or 2 (wrong usage or input)."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmtlib import __version__
from mmtlib.config import METHODS, PROFILES, InputError, make_settings, parse_override


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; errors that the user can mend end in one message, not in a traceback."""
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        return options.command(options)
    except (InputError, FileNotFoundError, PermissionError, NotADirectoryError) as error:
        print(f"mmt: {error}", file=sys.stderr)
        return 2
    except ImportError as error:
        print(
            f"mmt: {error}: the environment is not complete, or torch and torchvision do not fit: make install",
            file=sys.stderr,
        )
        return 1
    except (RuntimeError, FloatingPointError, OSError) as error:
        print(f"mmt: failed: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(
            "mmt: stopped; finished epochs are kept, and the same command goes on from there", file=sys.stderr
        )
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mmt", description="Mutual Mean-Teaching for person re-ID: learn, run, reproduce."
    )
    parser.add_argument("--version", action="version", version=f"mmtlib {__version__}")
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
    adapt.set_defaults(command=_adapt)

    evaluate = commands.add_parser(
        "evaluate", help="mAP and CMC of a network file on a data set's test images"
    )
    evaluate.add_argument("checkpoint", type=Path, help="a network_1.safetensors of a run")
    evaluate.add_argument("--data", required=True, help="an embedded domain or a folder")
    evaluate.add_argument(
        "--rerank", action="store_true", help="k-reciprocal re-ranking (k1 = 20, k2 = 6, λ = 0.3)"
    )
    _add_profile(evaluate)
    evaluate.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="override a setting"
    )
    evaluate.set_defaults(command=_evaluate)

    report = commands.add_parser(
        "report", help="results.json and report.html from the finished runs of a folder"
    )
    report.add_argument("folder", type=Path)
    report.set_defaults(command=_report)
    return parser


def _add_profile(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--profile", default="quick", metavar="P", help=f"one of {', '.join(PROFILES)} (default: quick)"
    )


def _overrides(pairs: Sequence[str]) -> dict[str, Any]:
    return dict(parse_override(pair) for pair in pairs)


def _run(options: argparse.Namespace) -> int:
    make_settings(options.profile)  # refuses an unknown profile before anything else is imported
    from mmtlib import lessons, reproduction
    from mmtlib.scheduling import run_all
    from mmtlib.tasks import home

    start = time.monotonic()
    out = (options.out or home() / "runs" / options.profile).absolute()
    _say(f"1/3 training: profile {options.profile}, results in {out}")
    run_all(lessons.suite(options.profile), out, profile=options.profile)
    _say("2/3 notebooks")
    lessons.execute_all(out, options.profile, _say)
    _say("3/3 report")
    page = reproduction.write_report(out, command=f"mmt run --profile {options.profile}")
    _say(f"done in {(time.monotonic() - start) / 60:.1f} min: {page}")
    return 0


def _adapt(options: argparse.Namespace) -> int:
    given = {name: getattr(options, name) for name in ("source", "target", "method", "seed")}
    settings = make_settings(options.profile, **given | _overrides(options.set))
    from mmtlib.experiments import run

    def progress(stage: str, done: int, total: int) -> None:
        _say(f"{stage}: epoch {done}/{total}")

    folder = run(settings, options.out.absolute(), progress, profile=options.profile)
    result = folder.result
    print(" ".join(f"{name} {result[name]:.1f}" for name in ("mAP", "top1", "top5", "top10")))
    print(folder.path / "result.json")
    return 0


def _evaluate(options: argparse.Namespace) -> int:
    settings = make_settings(options.profile, **_overrides(options.set))
    from mmtlib.tasks import evaluate_file

    scores = evaluate_file(options.checkpoint, options.data, settings, rerank=options.rerank)
    print(" ".join(f"{name} {value:.1f}" for name, value in scores.items()))
    return 0


def _report(options: argparse.Namespace) -> int:
    from mmtlib import reproduction

    print(reproduction.write_report(options.folder.absolute(), command=f"mmt report {options.folder}"))
    return 0


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
