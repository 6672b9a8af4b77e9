"""A cell of a matrix: a configuration, what of it matters to its method, and whether its data allow it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmtlib import InputError
from mmtlib.config import METHODS, Settings, has_clusters, make_settings, seen_settings


@dataclass(frozen=True)
class Cell:
    """One cell of a matrix: a configuration, and the profile that it is a change of."""

    profile: str
    settings: Settings

    def __str__(self) -> str:
        s = self.settings
        where = "→".join(Path(end).name or end for end in (s.source, s.target))
        k = f", K {s.clusters}" if has_clusters(s.method) else ""
        return f"{where}, {s.method}{k}, seed {s.seed}"


def essential(cell: Cell) -> Cell:
    """A cell without changes that its method does not see, so that it is run once for all of them."""
    asked = cell.settings
    seen = {name: getattr(asked, name) for name in seen_settings(asked.method)}
    return dataclasses.replace(cell, settings=make_settings(cell.profile, **seen))


def impossible(cells: Sequence[Cell], *, scored: bool = False) -> list[str]:
    """What keeps cells from ever running, found by opening every data set once.

    Args:
        cells: The cells.
        scored: Whether each needs a score, and so a target with a test set.

    Returns:
        A line per reason.
    """
    from mmtlib.data.tasks import census  # torch: a matrix can be read without

    counts: dict[tuple, Any] = {}
    found: dict[str, None] = {}
    for cell in cells:
        s = cell.settings
        keys = [(name, s.world_seed, s.world_scale, s.gap) for name in (s.source, s.target)]
        for key in keys:
            if key not in counts:
                try:
                    counts[key] = census(key[0], s)
                except (InputError, OSError) as error:
                    counts[key] = None
                    found[str(error)] = None
        source, target = (counts[key] for key in keys)
        if scored and target is not None and not target.scored:
            found[
                f"{s.target} has no test set (queries and a gallery), so its cells would have no score: `mmt adapt` "
                "adapts to such a target"
            ] = None
        if source is not None and source.identities < 2:
            found[f"{s.source} has labels of {source.identities} people: a source needs 2"] = None
        if target is not None and has_clusters(s.method) and s.clusters > target.images:
            found[f"K {s.clusters} for the {target.images:,} training images of {s.target}"] = None
        if target is not None and METHODS[s.method].labels == "identities" and target.identities < 2:
            found[f"{s.method} needs labels, and {s.target} has none"] = None
        if s.imagenet and s.backbone == "small":
            found["there are no ImageNet weights for the backbone small: leave out the setting imagenet"] = (
                None
            )
    return list(found)
