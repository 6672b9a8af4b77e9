"""Matrix files: YAML that names the cells of a table as products of lists."""

import itertools
import math
import re
import reprlib
import typing
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from mmtlib import InputError
from mmtlib.config import EMBEDDED_DOMAINS, PROFILES, make_settings, one_of, setting_types
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

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        """Refuse a key that stands there twice, of which YAML would drop one."""
        names = Counter(key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode))
        if twice := [name for name, count in names.items() if count > 1]:
            what = f"the key {twice[0]} stands there twice"
            raise yaml.constructor.ConstructorError(None, None, what, node.start_mark)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def read_matrix(path: str | Path, *, check_data: bool = True) -> list[Cell]:
    """Read a matrix file.

    The file holds one mapping, or a list of them; each is the product of its lists. `tasks` (pairs of embedded
    domains or folders), `methods` and `seeds` are needed; `clusters`, `backbones` and `set` may stand beside
    them, for one `profile` (default: quick). `set` overrides settings: a mapping whose lists are taken one value
    after another, or a list of such mappings. Folders are relative to the working folder. A method without K is
    one cell for all K, and direct transfer one for all settings of the adaptation.

    With `check_data` the data sets are opened, to find cells that could never run.

    Raises:
        InputError: An unknown key or value, a cell that stands there twice, or cells that could never run.
    """
    path, cells = Path(path), []
    try:
        content = _Loader(path.read_text(encoding="utf-8-sig")).get_single_data()
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"{path} cannot be used: {error}. Nothing was started") from error
    products = content if isinstance(content, list) else [content]
    for number, product in enumerate(products, start=1):
        try:
            cells += _cells(product)
        except InputError as error:
            where = f"{path}, product {number}" if len(products) > 1 else path
            raise InputError(f"{where}: {error}. Nothing was started") from error
    if twice := [cell for cell, count in Counter(cells).items() if count > 1]:
        raise InputError(f"{path}: {twice[0]} stands there twice with the same settings. Nothing was started")
    chosen = list(dict.fromkeys(cell.essential() for cell in cells))
    if check_data:
        from mmtlib.runs.preflight import impossible  # torch: a matrix can be read without

        if reasons := impossible([cell.settings for cell in chosen], scored=True):
            lines = "\n".join(f"  - {reason}" for reason in reasons)
            raise InputError(f"{path}: some cells are impossible, and nothing was started:\n{lines}")
    return chosen


def _cells(product: Any) -> Iterator[Cell]:
    if not isinstance(product, dict):
        raise InputError(f"expected a mapping with the keys {', '.join(KEYS)}, found {_brief(product)}")
    for key in product:
        one_of("key", key, KEYS)
    profile = product.get("profile", "quick")
    if not (isinstance(profile, str) and profile in PROFILES):
        raise InputError(f"profile: expected one of {', '.join(PROFILES)}, found {_brief(profile)}")
    tasks = [_task(pair) for pair in _list(product, "tasks")]
    given = (*product, "methods", "seeds")  # the last two are needed
    lists = {name: _list(product, key) for key, name in LISTS.items() if key in given}
    variants = _variants(product.get("set", {}))
    count = len(tasks) * len(variants) * math.prod(map(len, lists.values()))
    if count > MAX_CELLS:
        raise InputError(f"{count:,} cells are more than {MAX_CELLS:,}: split the matrix")
    for task, *values, variant in itertools.product(tasks, *lists.values(), variants):
        yield Cell(profile, make_settings(profile, **task | dict(zip(lists, values)) | variant))


def _list(product: dict, key: str) -> list:
    values = product.get(key)
    if not isinstance(values, list) or not values:
        raise InputError(f"{key}: expected a list of values, found {_brief(values)}")
    return values if key == "tasks" else [_plain(key, value) for value in values]


def _plain(name: str, value: Any) -> Any:
    """The value of a setting, not yet checked but of harmless size."""
    if any(isinstance(v, (list, dict)) for v in (value if isinstance(value, list) else [value])):
        raise InputError(f"{name}: expected a value, or a list of them, found {_brief(value)}")
    return value


def _task(pair: Any) -> dict[str, str]:
    """Source and target, folders as whole paths: cells run in other working folders."""
    if not (isinstance(pair, list) and len(pair) == 2 and all(isinstance(end, str) for end in pair)):
        raise InputError(f"tasks: expected pairs [source, target], found {_brief(pair)}")
    if not all(end and end.isprintable() for end in pair):
        raise InputError(f"tasks: expected names that print, found {_brief(pair)}")
    ends = (end if end in EMBEDDED_DOMAINS else str(Path(end).expanduser().absolute()) for end in pair)
    return dict(zip(("source", "target"), ends))


def _variants(given: Any) -> list[dict[str, Any]]:
    """The overrides under `set`, one mapping per variant."""
    entries = given if isinstance(given, list) else [given]
    if not entries or not all(isinstance(entry, dict) for entry in entries):
        raise InputError(f"set: expected a mapping of settings, or a list of them, found {_brief(given)}")
    variants = []
    for entry in entries:
        choices: dict[str, list] = {}
        for name, value in entry.items():
            if name in _LISTED:
                raise InputError(f"set: {name} is not for here, it has the list {_LISTED[name]}")
            several = isinstance(value, list)
            if typing.get_origin(setting_types().get(name)) is tuple:  # several values of a list are a list of lists
                several = several and any(isinstance(each, list) for each in value)
            choices[str(name)] = [_plain(name, each) for each in (value if several else [value])]
        if not 0 < math.prod(map(len, choices.values())) <= MAX_CELLS:
            raise InputError(f"set: found an empty list, or more than {MAX_CELLS:,} variants: split the matrix")
        variants += [dict(zip(choices, values)) for values in itertools.product(*choices.values())]
    return variants
