"""What the notebooks share: a checked beginning, the profile's runs, a recorded end. And their execution in order."""

from __future__ import annotations

import ast
import os
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from markupsafe import Markup

from mmtlib import InputError
from mmtlib.config import MAIN_METHODS, PROFILES, SEEDS, TASKS, Settings, make_settings
from mmtlib.course import execution
from mmtlib.files import home, write_json
from mmtlib.processes import process_pool, usable_cores
from mmtlib.runs.folder import RunFolder
from mmtlib.runs.parallel import run_all


@dataclass(frozen=True)
class Lesson:
    """One notebook's view of the suite: its profile, the folder of its runs, and its own results file."""

    name: str
    profile: str
    out: Path

    def settings(self, **changes: Any) -> Settings:
        """The profile's settings with changes; by default its first task and seed."""
        source, target = TASKS[self.profile][0]
        return make_settings(
            self.profile, **{"source": source, "target": target, "seed": SEEDS[self.profile][0]} | changes
        )

    def runs(
        self,
        methods: Sequence[str],
        seeds: Sequence[int] | None = None,
        tasks: Sequence[tuple[str, str]] | None = None,
        **changes: Any,
    ) -> list[RunFolder]:
        """Runs of methods × tasks × seeds, cached or trained; by default the first task and all seeds."""
        wanted = [
            self.settings(method=method, source=source, target=target, seed=seed, **changes)
            for source, target in tasks or TASKS[self.profile][:1]
            for method in methods
            for seed in seeds or SEEDS[self.profile]
        ]
        return run_all(wanted, self.out, profile=self.profile)

    def record(self, **values: Any) -> None:
        """Write what this notebook found to `notebooks/<name>.json` beside its executed copy, and print it."""
        write_json(self.out / "notebooks" / f"{self.name}.json", values)
        for name, value in values.items():
            print(f"{name}: {value:.3f}" if isinstance(value, float) else f"{name}: {value}")

    def expect(self, holds: bool, claim: str) -> None:
        """Say whether this run shows what such runs show on average; asserted is only what any run must show.

        Another processor rounds differently, and three seeds can differ by as much as two methods do: a score that is
        not as expected is a finding, no error. The `smoke` profile, whose scores mean nothing, says nothing.
        """
        if self.profile != "smoke":
            print(f"{'as expected' if holds else 'NOT as expected, in this run'}: {claim}")

    def link(self, page: Path, text: str) -> None:
        """Show a link to a page below `out`, as it is reached from the executed copy in `out/notebooks`."""
        from IPython.display import display

        inside = page.relative_to(self.out).as_posix()
        shown = Markup('<a href="../{}">{}</a> ({} in the folder of the runs)').format(
            quote(inside), text, inside
        )
        display({"text/html": shown, "text/plain": f"{text}: {page}"}, raw=True)


def begin(name: str, scope: dict[str, Any]) -> Lesson:
    """Check the parameters of a notebook, print the settings they lead to, set the figures' style.

    Args:
        name: The notebook's name without its ending.
        scope: `globals()`; `profile` and `out` are read from it ("" for `out` means `runs/<profile>`).

    Returns:
        The lesson.

    Raises:
        InputError: An injected parameter that the parameters cell does not have (papermill only warns), or an unknown
            profile.
    """
    _refuse_unknown_parameters(scope.get("In", []))
    expected = os.environ.get("MMTLIB_PYTHON", sys.executable)
    if Path(expected) != Path(sys.executable):
        raise InputError(
            f"this notebook's kernel runs {sys.executable}, but the suite was started by {expected}: "
            "install the kernel into the suite's environment (python -m ipykernel install --sys-prefix)"
        )
    if scope["profile"] not in PROFILES:
        raise InputError(f"unknown profile {scope['profile']!r}: known are {', '.join(PROFILES)}")
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
        if cell.startswith("# Parameters\n"):
            unknown = _assigned(cell) - _assigned(before)
            if unknown:
                raise InputError(
                    f"unknown notebook parameter(s) {', '.join(sorted(unknown))}: "
                    f"known are {', '.join(sorted(_assigned(before)))}"
                )


def _assigned(source: str) -> set[str]:
    targets = [
        t
        for n in ast.parse(source).body
        for t in (n.targets if isinstance(n, ast.Assign) else [getattr(n, "target", None)])
    ]
    return {target.id for target in targets if isinstance(target, ast.Name)}


def suite(profile: str) -> list[Settings]:
    """All runs that the notebooks of a profile load, so that they can be trained side by side before."""
    return [
        make_settings(profile, source=source, target=target, method=method, seed=seed)
        for source, target in TASKS[profile]
        for method in MAIN_METHODS
        for seed in SEEDS[profile]
    ]


def notebook_paths() -> list[Path]:
    """The ordered notebooks of the home.

    Raises:
        InputError: There are none.
    """
    found = sorted((home() / "notebooks").glob("[0-9][0-9]_*.ipynb"))
    if not found:
        raise InputError(
            f"no notebooks in {home() / 'notebooks'}: call `mmt init DIR` and run in that folder (or in a checkout), "
            "or set MMTLIB_HOME to its path"
        )
    return found


def execute(path: Path, out: Path, parameters: dict[str, Any]) -> Path:
    """Execute one notebook of the suite; the executed copy and its HTML go to `out/notebooks`.

    Args:
        path: The notebook.
        out: The folder of the runs.
        parameters: Values for its parameters cell.

    Returns:
        The executed copy; see `execution.execute` for what it raises.
    """
    return execution.execute(path, out / "notebooks" / path.name, parameters)


def execute_all(
    out: Path, profile: str, say: Callable[[str], None], workers: int | None = None
) -> list[Path]:
    """Execute all notebooks, as many at once as there are cores (two at most: each kernel takes over 1 GB).

    The last ones begin first: notebook 07 trains a run of its own, which then has company to the end.

    Args:
        out: The folder of the runs; they should exist, so that no two notebooks wait for one training.
        profile: The profile.
        say: Called with a line of progress for each notebook.
        workers: Notebooks at a time.

    Returns:
        The executed copies, in order.

    Raises:
        RuntimeError: Notebooks failed; all others were executed. The message names each and its error.
    """
    paths, start = notebook_paths(), time.monotonic()
    copies, failed = {}, []
    workers = workers or min(2, usable_cores())
    with process_pool(workers, _share_cores, workers) as pool:
        parameters = {"profile": profile, "out": str(out)}
        futures = {pool.submit(execute, path, out, parameters): path for path in reversed(paths)}
        for future in as_completed(futures):
            name = futures[future].stem
            try:
                copies[name] = future.result()
            except Exception as error:  # papermill raises many kinds; each is reported below
                failed.append(f"  {name}: {error}")
            done = len(copies) + len(failed)
            left = (time.monotonic() - start) / done * (len(paths) - done)
            say(
                f"notebook {name} {'ran' if name in copies else 'FAILED'}: {done}/{len(paths)}, about {left:.0f} s left"
            )
    if failed:
        raise RuntimeError(f"{len(failed)} of {len(paths)} notebooks failed:\n" + "\n".join(sorted(failed)))
    return [copies[path.stem] for path in paths]


def _share_cores(workers: int) -> None:
    """Let the kernels of this process take their share of the cores: threads that wait for a core slow all down."""
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, usable_cores() // workers)))
