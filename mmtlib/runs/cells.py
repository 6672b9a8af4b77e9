"""A cell of a matrix: one configuration, and what of it matters to its method."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from mmtlib.config import (
    METHODS,
    PROFILES,
    Settings,
    has_clusters,
    make_settings,
    profile_variant,
    seen_settings,
)


@dataclass(frozen=True)
class Cell:
    """One run that is asked for."""

    profile: str  # that it is a change of ("custom": none)
    settings: Settings

    @property
    def task(self) -> str:
        """Source, target and seed, for people."""
        ends = "→".join(Path(end).name or end for end in (self.settings.source, self.settings.target))
        return f"{ends}, seed {self.settings.seed}"

    def __str__(self) -> str:
        """Method, task, seed, K where the method has one, and what differs from the profile."""
        s = self.settings
        k = f"K {s.clusters}" if has_clusters(s.method) else ""
        changed = profile_variant(self.profile, s) if self.profile in PROFILES else ""
        return ", ".join(filter(None, (METHODS[s.method].title, self.task, k, changed)))

    def essential(self) -> Self:
        """The same without changes that its method does not see, so that it is run once for all of them."""
        s = self.settings
        seen = {name: getattr(s, name) for name in seen_settings(s.method)}
        task = {name: getattr(s, name) for name in ("source", "target", "same_domain")}
        plain = make_settings(self.profile, method=s.method, **task)  # a target has its own K
        return dataclasses.replace(self, settings=plain.replace(**seen))
