"""Why pseudo labels are wrong: what the two images of a false merge or a false split have in common, or not.

A *false merge* is a pair of images of two identities in one cluster, a *false split* a pair of one identity in two
clusters. A property of pairs, such as "same upper colour", may explain them only if it is more frequent among them than
among all pairs that could have gone wrong: its *base rate*. All counts are exact. They come from sums over groups of
images that agree, never from lists of pairs, so 33,000 images (half a billion pairs) are no trouble.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch

from mmtlib import InputError
from mmtlib.data.readers import ReIDDataset


@dataclass(frozen=True)
class Cause:
    """A property of pairs of images, told from a key of each image."""

    title: str
    key: np.ndarray  # (N) integers: two images agree if their keys are equal; −1 agrees with nothing
    agree: bool = True  # whether a pair has the property if its keys agree, or if they do not


# What images of two people may share: attribute → title. Values of _NOTHING are not shared by anybody.
_SHARED = {
    "upper_colour": "same upper colour", "upper": "same upper garment", "upper_pattern": "same upper pattern",
    "lower_colour": "same lower colour", "lower": "same lower garment", "shoes_colour": "same shoe colour",
    "bag": "same bag", "hat": "same hat", "hair_colour": "same hair colour", "build": "same build",
    "view": "same view", "occluder": "same occluder",
}  # fmt: skip
_NOTHING = ("none", "", "-1")
HIDDEN = 0.1  # share of a figure from which on it counts as occluded


def read_attributes(dataset: ReIDDataset, paths: Sequence[str]) -> pd.DataFrame | None:
    """The truth that an embedded world keeps about its images, or None for a data set without it.

    Returns:
        A row per path (relative to the data set's root), in order: the columns of `attributes.csv`.

    Raises:
        InputError: The file does not tell of all images.
    """
    file = dataset.root / "attributes.csv"
    if not file.exists():
        return None
    rows = pd.read_csv(file, keep_default_na=False).set_index("path")
    if missing := [path for path in paths if path not in rows.index]:
        told = f"no line for {len(missing)} images, such as {missing[0]}"
        raise InputError(f"{file} has {told}: draw the world anew")
    return rows.loc[list(paths)].reset_index()


def brightness(images: torch.Tensor) -> np.ndarray:
    """Mean brightness of each image in [0, 1], (N), from uint8 (N, 3, H, W)."""
    weights = torch.tensor([0.299, 0.587, 0.114], device=images.device) / 255
    blocks = [block.float().mean(dim=(2, 3)) @ weights for block in images.split(1024)]
    return torch.cat(blocks).cpu().numpy()


def merge_causes(
    camids: np.ndarray, attributes: pd.DataFrame | None = None, light: np.ndarray | None = None
) -> list[Cause]:
    """What the two images of a false merge may have in common.

    Args:
        camids: Cameras (N); where all are one, the camera is no cause.
        attributes: The truth about each image, a row each, as by `read_attributes`; columns that are not known here
            are left alone.
        light: Brightness (N), as by `brightness`.
    """
    attributes = pd.DataFrame() if attributes is None else attributes
    causes = [Cause("same camera", _codes(camids))] if np.ptp(camids) else []
    if light is not None:
        causes.append(Cause("both dark (darkest third)", np.where(_third(light) == 0, 0, -1)))
    causes += [Cause(title, _codes(attributes[c])) for c, title in _SHARED.items() if c in attributes]
    if "lookalike_of" in attributes:  # a look-alike wears the clothes of the identity that it is named after
        worn = attributes["lookalike_of"]
        causes.append(Cause("look-alikes", worn.where(worn >= 0, attributes["identity"]).to_numpy()))
    return causes + _occluded(attributes)


def split_causes(
    camids: np.ndarray, attributes: pd.DataFrame | None = None, light: np.ndarray | None = None
) -> list[Cause]:
    """What may set two images of one person apart; arguments as of `merge_causes`."""
    attributes = pd.DataFrame() if attributes is None else attributes
    causes = [Cause("other camera", _codes(camids), agree=False)] if np.ptp(camids) else []
    if light is not None:
        causes.append(Cause("other brightness (third)", _third(light), agree=False))
        causes.append(Cause("at least one dark (third)", _unless(_third(light) == 0), agree=False))
    if "view" in attributes:
        causes.append(Cause("other view", _codes(attributes["view"]), agree=False))
    causes += _occluded(attributes)
    if "shade" in attributes:
        causes.append(Cause("at least one in part shade", _unless(attributes["shade"] > 0), agree=False))
    return causes


def _occluded(attributes: pd.DataFrame) -> list[Cause]:
    hidden = [_unless(attributes["occluded"] >= HIDDEN)] if "occluded" in attributes else []
    return [Cause("at least one occluded", key, agree=False) for key in hidden]


def false_merges(
    labels: np.ndarray, pids: np.ndarray, causes: Sequence[Cause], *, draws: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """How often false merges have each property, against all pairs of images of two identities.

    Args:
        labels: Pseudo labels (N); images with −1 are left out, of the base rate too.
        pids: True identities (N); images with −1 (unknown) are left out as well.
        causes: As by `merge_causes`.
        draws, seed: Bootstrap samples of the clusters, and their seed.

    Returns:
        A row per cause, in descending order of `excess`: `cause`, `pairs` (false merges that have the property),
        `share` (of all false merges), `base` (share among all pairs of images of two identities), `lift`
        (share / base), `low` and `high` (its 95 % interval, by drawing clusters anew; the base rate is taken as
        known), `excess` (share − base). Properties overlap, so shares add up to more than 1.

    Raises:
        InputError: No false merge: there is nothing to explain.
    """
    labels, pids, causes = _known(labels, pids, causes)
    wrong = _counts(labels, causes, pids)  # (K, 1 + P)
    base = _counts(np.zeros_like(labels), causes, pids)[0]
    return _table(wrong, base, causes, "merge", draws, seed)


def false_splits(
    labels: np.ndarray, pids: np.ndarray, causes: Sequence[Cause], *, draws: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """How often false splits have each property, against all pairs of images of one identity.

    Arguments and columns are those of `false_merges`, but `base` is the share among all pairs of images of one
    identity, and the bootstrap draws identities anew. Pairs with an image that was left out (−1) do not count.

    Raises:
        InputError: No false split.
    """
    labels, pids, causes = _known(labels, pids, causes)
    wrong = _counts(pids, causes, labels)  # (I, 1 + P)
    base = _counts(pids, causes).sum(axis=0)
    return _table(wrong, base, causes, "split", draws, seed)


def error_rates(labels: np.ndarray, pids: np.ndarray, causes: Sequence[Cause], kind: str) -> pd.DataFrame:
    """How many of the pairs with each property went wrong, so that labels of the same images can be compared.

    Args:
        labels, pids, causes: As of `false_merges`; but a pair with an image that was left out (−1) counts, as one that
            did not go wrong.
        kind: "merge" (pairs of images of two identities) or "split" (of one).

    Returns:
        A row per cause after one for all pairs (cause "all pairs"): `cause`, `wrong`, `possible`, `rate`.
    """
    named = _known(np.zeros_like(labels), pids, causes)
    together = np.zeros_like(named[1]) if kind == "merge" else named[1]
    possible = _counts(together, named[2], named[1] if kind == "merge" else None).sum(axis=0)
    labels, pids, kept = _known(labels, pids, causes)
    groups, apart = (labels, pids) if kind == "merge" else (pids, labels)
    wrong = _counts(groups, kept, apart).sum(axis=0)
    names = ["all pairs", *(cause.title for cause in causes)]
    rows = pd.DataFrame({"cause": names, "wrong": wrong, "possible": possible})
    return rows.assign(rate=rows["wrong"] / rows["possible"])


def _table(
    wrong: np.ndarray, base: np.ndarray, causes: Sequence[Cause], kind: str, draws: int, seed: int
) -> pd.DataFrame:
    """Shares, lifts and intervals; column 0 of `wrong` (clusters or identities, 1 + P) and `base` is all pairs."""
    total, units = wrong.sum(axis=0), len(wrong)
    if not total[0]:
        raise InputError(f"there is no false {kind}, so there is nothing to explain")
    drawn = np.random.default_rng(seed).multinomial(units, np.full(units, 1 / units), size=draws) @ wrong
    drawn = drawn[drawn[:, 0] > 0]
    rows = pd.DataFrame({"cause": [cause.title for cause in causes], "pairs": total[1:].astype(np.int64)})
    rows["share"], rows["base"] = total[1:] / total[0], base[1:] / base[0]
    rows["lift"] = rows["share"] / rows["base"]
    with np.errstate(divide="ignore", invalid="ignore"):  # a property that no pair has: its lift is NaN
        lifts = drawn[:, 1:] / drawn[:, :1] / rows["base"].to_numpy()
        rows["low"], rows["high"] = np.quantile(lifts, [0.025, 0.975], axis=0)
    rows["excess"] = rows["share"] - rows["base"]
    return rows.sort_values("excess", ascending=False, ignore_index=True)


def _counts(groups: np.ndarray, causes: Sequence[Cause], apart: np.ndarray | None = None) -> np.ndarray:
    """Pairs of images in each group that differ in `apart`: all of them, then those with each property, (G, 1 + P)."""

    def pairs(*keys: np.ndarray) -> np.ndarray:
        return _agreeing(groups, *keys) - (0 if apart is None else _agreeing(groups, apart, *keys))

    every = pairs()
    alike = [(pairs(cause.key), cause.agree) for cause in causes]
    return np.stack([every, *(found if agree else every - found for found, agree in alike)], axis=1)


def _agreeing(groups: np.ndarray, *keys: np.ndarray) -> np.ndarray:
    """Pairs of images within each group (numbered from 0) that agree in all keys, float64 (G)."""
    images = pd.DataFrame({"group": groups, **dict(enumerate(keys))})
    alike = images[(images >= 0).all(axis=1)]
    sizes = alike.value_counts(sort=False)  # of each combination of group and keys
    pairs = sizes * (sizes - 1.0) / 2
    return np.bincount(sizes.index.get_level_values("group"), pairs, minlength=groups.max() + 1)


def _known(labels: np.ndarray, pids: np.ndarray, causes: Sequence[Cause]) -> tuple[np.ndarray, np.ndarray, list[Cause]]:
    """What is left of all when images without a cluster or an identity go; both are numbered from 0."""
    lengths = {len(labels), len(pids), *(len(cause.key) for cause in causes)}
    if len(lengths) > 1:
        raise InputError(f"labels, pids, keys of causes have lengths {sorted(lengths)}: one entry per image")
    kept = (labels >= 0) & (pids >= 0)
    if not kept.any():
        raise InputError("no image has both a cluster and a known identity")
    labels, pids = (np.unique(each[kept], return_inverse=True)[1] for each in (labels, pids))
    return labels, pids, [replace(cause, key=cause.key[kept]) for cause in causes]


def _codes(values: np.ndarray | pd.Series) -> np.ndarray:
    """Values as numbers from 0; −1 for those that name nothing."""
    text = np.asarray(values).astype(str)
    return np.where(np.isin(text, _NOTHING), -1, np.unique(text, return_inverse=True)[1])


def _third(light: np.ndarray) -> np.ndarray:
    return np.searchsorted(np.quantile(light, [1 / 3, 2 / 3]), light)


def _unless(flags: np.ndarray | pd.Series) -> np.ndarray:
    """A key in which flagged images agree with nobody: a pair disagrees if at least one of its images is flagged."""
    return np.where(np.asarray(flags), -1, 0)
