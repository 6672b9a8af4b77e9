"""Matrix files: YAML that names the cells of a table as products of lists. All that is wrong is said at once."""

from __future__ import annotations

import functools
import itertools
import math
import re
import reprlib
import typing
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml

from mmtlib import InputError
from mmtlib.config import EMBEDDED_DOMAINS, PROFILES, Settings, make_settings
from mmtlib.runs.cells import Cell

MAX_CELLS = 10_000
# Keys that list the values of a setting, in the order in which they are multiplied; `set` is for everything else.
LISTS = {"methods": "method", "seeds": "seed", "clusters": "clusters", "backbones": "backbone"}
KEYS = ("profile", "tasks", *LISTS, "set")
_LISTED = {setting: key for key, setting in LISTS.items()} | dict.fromkeys(("source", "target"), "tasks")

_shortener = reprlib.Repr()  # aliases in a small file can stand for gigabytes
_shortener.maxlevel, _shortener.maxstring, _shortener.maxother = 3, 300, 300
_brief = _shortener.repr


class _Loader(yaml.SafeLoader):
    """YAML without objects, in which 1e-3 is a number, as in YAML 1.2; in 1.1, which PyYAML speaks, it is text."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.twice: list[str] = []

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        """Note the keys that stand there twice, of which YAML would drop one."""
        names = Counter(key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode))
        line = node.start_mark.line + 1
        self.twice += [f"line {line}: the key {name} stands there twice" for name in names if names[name] > 1]
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


@dataclass
class _Problems:
    """What is wrong, each line once, with the product of the file that it stands in."""

    where: str = ""
    lines: list[str] = field(default_factory=list)

    def add(self, text: str) -> None:
        if self.where + text not in self.lines:
            self.lines.append(self.where + text)

    def catch(self, call: Callable[[], Any]) -> Any:
        """The value of a call, or None after noting the input error that it raised."""
        try:
            return call()
        except InputError as error:
            self.add(str(error))
            return None


def read_matrix(path: str | Path, *, check_data: bool = True) -> list[Cell]:
    """Read a matrix file.

    The file holds one mapping, or a list of them; each is the product of its lists. `tasks` (pairs of embedded
    domains or folders), `methods` and `seeds` are needed; `clusters`, `backbones` and `set` may stand beside
    them, for one `profile` (default: quick). `set` overrides settings: a mapping whose lists are taken one value
    after another, or a list of such mappings. Folders are relative to the working folder. A method without K is
    one cell for all K, and direct transfer one for all settings of the adaptation.

    Args:
        path: The file.
        check_data: Also open the data sets, to find cells that could never run.

    Raises:
        InputError: The message holds all that is wrong: unknown keys and values, duplicates, impossible cells.
    """
    path, problems, cells = Path(path), _Problems(), {}
    products = _products(path, problems)
    for number, product in enumerate(products, start=1):
        problems.where = f"product {number}: " if len(products) > 1 else ""
        for cell in _cells(product, problems):
            if cell in cells:
                problems.add(f"{cell} stands there twice with the same settings")
            cells[cell] = None
    problems.where = ""
    chosen = list(dict.fromkeys(cell.essential() for cell in cells))
    if check_data:
        from mmtlib.runs.preflight import impossible  # torch: a matrix can be read without

        for reason in impossible([cell.settings for cell in chosen], scored=True):
            problems.add(f"impossible: {reason}")
    if problems.lines:
        count = f"{len(problems.lines)} problem{'s' if len(problems.lines) > 1 else ''}"
        raise InputError(
            f"{path}: {count}, nothing was started:\n" + "\n".join(f"  - {p}" for p in problems.lines)
        )
    return chosen


def _products(path: Path, problems: _Problems) -> list[Any]:
    try:
        loader = _Loader(path.read_text(encoding="utf-8-sig"))
        value = loader.get_single_data()
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"{path} is no YAML file: {error}") from error
    except IsADirectoryError as error:
        raise InputError(f"{path} is a folder; name the matrix file in it") from error
    for line in loader.twice:
        problems.add(line)
    if not value:
        problems.add("the file is empty; expected tasks, methods and seeds")
    return value if isinstance(value, list) else [value] if value else []


def _cells(product: Any, problems: _Problems) -> list[Cell]:
    """The cells of one product; what cannot be used is left out and noted."""
    if not isinstance(product, dict):
        problems.add(f"expected a mapping with the keys {', '.join(KEYS)}, found {_brief(product)}")
        return []
    for key in product:
        if key not in KEYS:
            near = get_close_matches(str(key), KEYS, 1)
            problems.add(
                f"unknown key {key!r}{f', did you mean {near[0]!r}' if near else ''}: known are {', '.join(KEYS)}"
            )
    profile = product.get("profile", "quick")
    if not (isinstance(profile, str) and profile in PROFILES):
        problems.add(f"profile: expected one of {', '.join(PROFILES)}, found {_brief(profile)}")
        profile = "quick"
    tasks = [_whole_paths(pair) for pair in _list(product, "tasks", _is_pair, problems)]
    lists = {}
    for key, name in LISTS.items():
        if key in product or key in ("methods", "seeds"):
            fits = functools.partial(_fits, key, name, profile)
            lists[name] = _list(product, key, fits, problems)
    variants = _variants(product.get("set", {}), profile, problems)
    for ends, same in itertools.product(tasks, {each.get("same_domain", False) for each in variants}):
        problems.catch(lambda task=ends | {"same_domain": same}: make_settings(profile, **task))
    count = len(tasks) * len(variants) * math.prod(map(len, lists.values()))
    if count > MAX_CELLS:
        problems.add(f"{count:,} cells are more than {MAX_CELLS:,}: split the matrix")
        return []
    found = []
    for task, *values, variant in itertools.product(tasks, *lists.values(), variants):
        named = task | dict(zip(lists, values)) | variant
        settings = problems.catch(lambda named=named: make_settings(profile, **named))
        if settings is not None:
            found.append(Cell(profile, settings))
    return found


def _list(product: dict, key: str, fits: Callable[[Any, _Problems], bool], problems: _Problems) -> list:
    """The values under a key that can be used, each once."""
    if key not in product:
        problems.add(f"the key {key} is missing: expected a list")
        return []
    values = product[key]
    if not isinstance(values, list) or not values:
        problems.add(f"{key}: expected a list of values, found {_brief(values)}")
        return []
    usable = [value for value in values if fits(value, problems)]
    found = {repr(value): value for value in usable}  # 1 is not 1.0
    for text, count in Counter(map(repr, usable)).items():
        if count > 1:
            problems.add(f"{key}: {text} stands there twice")
    return list(found.values())


def _is_pair(value: Any, problems: _Problems) -> bool:
    good = isinstance(value, list) and len(value) == 2
    good = good and all(isinstance(end, str) and end.isprintable() and end for end in value)
    if not good:
        problems.add(f"tasks: expected pairs [source, target], found {_brief(value)}")
    return good


def _whole_paths(pair: list[str]) -> dict[str, str]:
    """Source and target, folders as whole paths: cells run in other working folders."""
    ends = (end if end in EMBEDDED_DOMAINS else str(Path(end).expanduser().absolute()) for end in pair)
    return dict(zip(("source", "target"), ends))


def _fits(key: str, name: str, profile: str, value: Any, problems: _Problems) -> bool:
    """Whether a setting can have a value; asked of each one alone, so that every wrong value is found."""
    if any(isinstance(v, (list, dict)) for v in (value if isinstance(value, list) else [value])):
        problems.add(f"{key}: {name}: expected a value, or a list of them, found {_brief(value)}")
        return False
    return problems.catch(lambda: make_settings(profile, **{str(name): value})) is not None


def _variants(given: Any, profile: str, problems: _Problems) -> list[dict[str, Any]]:
    """The overrides under `set`, one mapping per variant."""
    hints = typing.get_type_hints(Settings)
    entries = given if isinstance(given, list) else [given]
    if not entries or not all(isinstance(entry, dict) for entry in entries):
        problems.add(f"set: expected a mapping of settings, or a list of them, found {_brief(given)}")
        return [{}]
    variants = []
    for entry in entries:
        choices = {}
        for name, value in entry.items():
            if name in _LISTED:
                problems.add(f"set: {name} is not for here, it has the list {_LISTED[name]}")
                continue
            values = value if _is_choice(value, hints.get(name)) else [value]
            if not values:
                problems.add(f"set: {name} is an empty list")
            if fitting := [each for each in values if _fits("set", name, profile, each, problems)]:
                choices[name] = fitting
        if math.prod(map(len, choices.values())) > MAX_CELLS:
            problems.add(f"set: the lists make more than {MAX_CELLS:,} variants: split the matrix")
            continue
        variants += [dict(zip(choices, values)) for values in itertools.product(*choices.values())]
    return variants


def _is_choice(value: Any, kind: Any) -> bool:
    """Whether a list holds several values of a setting; of one that is a list itself, a list of lists."""
    is_list = typing.get_origin(kind) is tuple
    return isinstance(value, list) and (not is_list or any(isinstance(v, list) for v in value))
