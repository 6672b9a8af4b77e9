"""What the notebooks share: a checked beginning, the profile's runs, a recorded end. And their execution in order."""

import ast
import json
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from markupsafe import Markup

from mmtlib import InputError
from mmtlib.config import MAIN_METHODS, SEEDS, TASKS, Settings, make_settings
from mmtlib.course import answers, checks
from mmtlib.course.execution import execute
from mmtlib.files import home, write_json
from mmtlib.processes import process_pool, usable_cores
from mmtlib.results.findings import beside
from mmtlib.results.runs import read_committed
from mmtlib.runs.folder import RunFolder
from mmtlib.runs.parallel import run_all


@dataclass(frozen=True)
class Lesson:
    """One notebook's view of the suite: its profile, the folder of its runs, and its own results file."""

    name: str
    profile: str
    out: Path
    predictions: dict[str, dict[str, Any]] = field(default_factory=dict, compare=False)

    def settings(self, **changes: Any) -> Settings:
        """The profile's settings with changes; by default its first task and seed."""
        (source, target), seed = TASKS[self.profile][0], SEEDS[self.profile][0]
        return make_settings(self.profile, **{"source": source, "target": target, "seed": seed} | changes)

    def runs(self, methods: Sequence[str], seeds: Sequence[int] | None = None,
             tasks: Sequence[tuple[str, str]] | None = None, **changes: Any) -> list[RunFolder]:  # fmt: skip
        """Runs of methods × seeds (None: all) × tasks (None: the first), cached or trained."""
        wanted = _product(self.profile, tasks or TASKS[self.profile][:1], methods, seeds, **changes)
        return run_all(wanted, self.out, profile=self.profile)

    def record(self, **values: Any) -> None:
        """Write what this notebook found to `notebooks/<name>.json` beside its executed copy, and print it."""
        file = write_json(self.out / "notebooks" / f"{self.name}.json", values)
        short = json.loads(file.read_text("utf-8"), parse_float=lambda text: round(float(text), 3))
        for name, value in short.items():
            print(f"{name}: {value}")
        if seen := [each for each in self.predictions.values() if "close" in each]:
            close = sum(each["close"] for each in seen)
            print(f"How well did you predict? {close} of {len(seen)} predictions were close.")

    def predict(self, what: str, guess: float | str | None) -> None:
        """Keep a guess before the cell that shows the result; None, where nobody guesses, is passed over."""
        if guess is not None:
            self.predictions[what] = {"guess": guess}

    def reveal(self, what: str, result: float | str) -> None:
        """Show a result beside its guess, if there was one, and keep both in the student's file."""
        if what in self.predictions:
            guess = self.predictions[what]["guess"]
            close, line = answers.compared(guess, result if isinstance(result, str) else float(result))
            self.predictions[what] = {"guess": guess, "result": result, "close": close}
            print(f"{what}: {line}")
            self._keep("predictions", what, self.predictions[what])

    def check(self, exercise: str, answer: float | str | None) -> None:
        """Say whether an answer is right or what kind of error it looks like, and keep it in the student's file.

        None is no answer yet. Why some exercises have none to check, `checks.CHECKS` says.
        """
        if exercise not in checks.CHECKS:
            known = ", ".join(name for name in checks.CHECKS if name[:2] == self.name[:2])
            raise InputError(f"there is no exercise {exercise!r} to check: this lesson has {known}")
        truth = checks.CHECKS[exercise]
        if isinstance(truth, str):
            print(f"{exercise}: not checked: {truth}")
        elif answer is None:
            print(f"{exercise}: no answer yet")
        else:
            answer = answer if isinstance(answer, str) else float(answer)
            right, kind = answers.verdict(answer, truth(self) if callable(truth) else truth)
            print(f"{exercise}: right" if right else f"{exercise}: not yet: {kind}")
            self._keep("answers", exercise, {"answer": answer, "right": right})

    def _keep(self, part: str, key: str, entry: dict[str, Any]) -> None:
        answers.keep(self.out / "notebooks" / f"{self.name}{answers.ENDING}", part, key, entry)

    def expect(self, holds: bool, claim: str) -> None:
        """Say whether this run shows what such runs show on average; asserted is only what any run must show.

        Another processor rounds differently, and three seeds can differ by as much as two methods do: a score that is
        not as expected is a finding, no error. The `smoke` profile, whose scores mean nothing, says nothing.
        """
        if self.profile != "smoke":
            print(f"{'as expected' if holds else 'NOT as expected, in this run'}: {claim}")

    def ours(self) -> list[dict]:
        """The committed results of this lesson's task (results/standard.json); none for other profiles' worlds."""
        own = self.settings()
        table = read_committed("standard") if self.profile in ("quick", "standard") else []
        return [r for r in table or () if (r["source"], r["target"]) == (own.source, own.target)]

    def compare(self, results: Sequence[dict], *pairs: tuple[str, str]) -> None:
        """Print differences of methods, each beside that of the committed table."""
        for a, b in pairs:
            print(beside(results, self.ours(), a, b))

    def link(self, page: Path, text: str) -> None:
        """Show a link to a page below `out`, as it is reached from the executed copy in `out/notebooks`."""
        from IPython.display import display

        inside = page.relative_to(self.out).as_posix()
        shown = Markup('<a href="../{}">{}</a> ({} in the folder of the runs)')
        shown = shown.format(quote(inside), text, inside)
        display({"text/html": shown, "text/plain": f"{text}: {page}"}, raw=True)


def begin(name: str, scope: dict[str, Any]) -> Lesson:
    """Check the parameters of a notebook, print the settings they lead to, set the figures' style.

    `scope` is `globals()`; `profile` and `out` are read from it ("" for `out` means `runs/<profile>`). An injected
    parameter that the parameters cell does not have is refused (papermill only warns).
    """
    _refuse_unknown_parameters(scope.get("In", []))
    make_settings(scope["profile"])  # refuses an unknown profile
    out = Path(scope["out"]) if scope["out"] else home() / "runs" / scope["profile"]
    lesson = Lesson(name, scope["profile"], out.absolute())
    from mmtlib import figures  # matplotlib: not needed to run the suite

    figures.use_style()
    source, target = (scope.get(end, getattr(lesson.settings(), end)) for end in ("source", "target"))
    seeds = scope.get("seed", SEEDS[lesson.profile])  # a notebook may have these as parameters
    print(f"profile {lesson.profile}: {source} → {target}, seeds {seeds}, runs in {out}")
    return lesson


def _refuse_unknown_parameters(cells: Sequence[str]) -> None:
    """Compare the cell that papermill injected with the parameters cell, which ran just before it."""
    for before, cell in zip(cells, cells[1:]):
        if cell.startswith("# Parameters\n") and (unknown := _assigned(cell) - _assigned(before)):
            names, known = (", ".join(sorted(each)) for each in (unknown, _assigned(before)))
            raise InputError(f"unknown notebook parameter(s) {names}: known are {known}")


def _assigned(source: str) -> set[str]:
    nodes = ast.walk(ast.parse(source))
    return {n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}


def suite(profile: str) -> list[Settings]:
    """All runs that the notebooks of a profile load, so that they can be trained side by side before."""
    return _product(profile, TASKS[profile], MAIN_METHODS)


def _product(profile: str, tasks: Sequence[tuple[str, str]], methods: Sequence[str],
             seeds: Sequence[int] | None = None, **changes: Any) -> list[Settings]:  # fmt: skip
    return [
        make_settings(profile, source=source, target=target, method=method, seed=seed, **changes)
        for source, target in tasks
        for method in methods
        for seed in seeds or SEEDS[profile]
    ]


def notebook_paths() -> list[Path]:
    """The ordered notebooks of the home."""
    folder = home() / "notebooks"
    if found := sorted(folder.glob("[0-9][0-9]_*.ipynb")):
        return found
    raise InputError(
        f"no notebooks in {folder}: call `mmt init DIR` and run in that folder (or in a checkout), or set MMTLIB_HOME "
        "to its path"
    )


def execute_all(out: Path, profile: str, say: Callable[[str], None]) -> list[Path]:
    """Execute all notebooks, as many at once as there are cores (two at most: each kernel takes over 1 GB).

    The last ones begin first: notebook 07 trains a run of its own, which then has company to the end. The runs in
    `out` should exist, so that no two notebooks wait for one training.

    Returns:
        The executed copies in `out/notebooks`, in order.

    Raises:
        RuntimeError: Notebooks failed; all others were executed. The message names each and its error.
    """
    copies = {path: out / "notebooks" / path.name for path in notebook_paths()}
    start, failed = time.monotonic(), []
    workers, parameters = min(2, usable_cores()), {"profile": profile, "out": str(out)}
    with process_pool(workers, _share_cores, workers) as pool:
        futures = {pool.submit(execute, *ends, parameters): ends[0].stem for ends in reversed(copies.items())}
        for done, future in enumerate(as_completed(futures), start=1):
            name, error = futures[future], future.exception()  # papermill raises many kinds
            if error:
                failed.append(f"  {name}: {error}")
            left = (time.monotonic() - start) / done * (len(copies) - done)
            state = "FAILED" if error else "ran"
            say(f"notebook {name} {state}: {done}/{len(copies)}, about {left:.0f} s left")
    if failed:
        raise RuntimeError(f"{len(failed)} of {len(copies)} notebooks failed:\n" + "\n".join(sorted(failed)))
    return list(copies.values())


def _share_cores(workers: int) -> None:
    """Let the kernels of this process take their share of the cores: threads that wait for a core slow all down."""
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, usable_cores() // workers)))
