"""Features of any images as a file that other programs open, and searches in it.

`features.npz` holds `features` (N, D), the columns of a table of the images, and `about`: what the features depend on.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from mmtlib import InputError, retrieval
from mmtlib.config import METHODS, Settings
from mmtlib.data.tables import NO_LABEL, write_table
from mmtlib.data.tasks import load_images, open_dataset
from mmtlib.distances import centred, distance_blocks
from mmtlib.evaluation import extract
from mmtlib.files import read_json, some, write_atomic, write_json
from mmtlib.networks import open_network

PART = 10_000  # images that are decoded, embedded and kept at a time
COLUMNS = ("path", "split", "pid", "camid")


@dataclass(frozen=True)
class Features:
    """Embeddings of a data set's images by one network."""

    vectors: np.ndarray  # float32 (N, D), unit rows
    images: (
        pd.DataFrame
    )  # a row per image: path (relative to the data set's root), split, pid (−1: unknown), camid
    about: dict[
        str, Any
    ]  # weights and their SHA-256, settings, the data set's root and fingerprint, images per split


def embed(
    data: str,
    checkpoint: Path,
    settings: Settings,
    out: Path,
    say: Callable[[str], None],
    *,
    part: int = PART,
) -> Features:
    """Embed all images of a data set, and keep them as `features.npz` in a folder.

    What was embedded before an interrupt is not embedded again, and a file of the same images, weights and settings is
    taken as it is. Memory holds `part` decoded images and all features.

    Args:
        data: A folder of images, a data set or an embedded domain.
        checkpoint: Weights of any kind that `networks.open_network` reads.
        settings: How the network is used, as `networks.settings_of` finds it.
        say: Called with a line per `part` images.

    Raises:
        InputError: Images that cannot be read, no image, or no weights.
    """
    network = open_network(checkpoint, gain=settings.gain)
    dataset = open_dataset(data, settings)
    columns = [
        (pd.Series(split.paths, dtype=object), name, split.pids, split.camids)
        for name, split in dataset.parts.items()
    ]
    images = pd.concat([pd.DataFrame(dict(zip(COLUMNS, each))) for each in columns], ignore_index=True)
    about = {
        "checkpoint": str(checkpoint.absolute()),
        "sha256": _sha256(checkpoint),
        "settings": settings.to_dict(),
        "data": {"name": dataset.name, "root": str(dataset.root), "fingerprint": dataset.fingerprint()},
        "splits": {name: len(split) for name, split in dataset.parts.items()},
    }
    if (out / "features.npz").exists() and _key((there := read_features(out)).about) == _key(about):
        say(f"{len(images):,} features of these images are there already")
        return there
    parts = out / "parts"
    if (parts / "about.json").exists() and _key(read_json(parts / "about.json")) != _key(about):
        say(f"{parts} is of other images, weights or settings: begun anew")
        shutil.rmtree(parts)
    write_json(parts / "about.json", about)
    if cameras := METHODS[settings.method].cameras:
        say(f"note: {settings.method} takes cameras out ({cameras}) when it is scored, not here")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    network, vectors = network.to(device), []
    for start in range(0, len(images), part):
        paths, kept = images["path"][start : start + part].tolist(), parts / f"{start}-{part}.npy"
        if not kept.exists():
            pixels = load_images(dataset.root, paths, settings.height, settings.width, device)
            made = extract(settings, [network], pixels)[0]
            write_atomic(kept, lambda stream, made=made: np.save(stream, made))
        vectors.append(np.load(kept, allow_pickle=False))
        say(f"{start + len(paths):,} of {len(images):,} images")
    found = Features(np.concatenate(vectors), images, about)
    columns = {name: np.array(images[name].tolist()) for name in COLUMNS}
    arrays = {"features": found.vectors, "about": json.dumps(about), **columns}
    write_atomic(out / "features.npz", lambda stream: np.savez(stream, **arrays))
    shutil.rmtree(parts)
    return found


def write_csv(found: Features, file: Path) -> Path:
    """Write features as a table: a row per image, the columns of the images, then f0, f1, …"""
    numbers = pd.DataFrame(found.vectors).add_prefix("f")
    return write_table(file, pd.concat([found.images, numbers], axis=1))


def read_features(folder: Path) -> Features:
    """The features that `embed` kept in a folder.

    Raises:
        InputError: There are none, or the file is damaged or holds objects, which are not loaded.
    """
    file = folder / "features.npz"
    try:
        with np.load(file, allow_pickle=False) as arrays:
            columns = {name: arrays[name] for name in COLUMNS}
            images = pd.DataFrame(columns | {"path": columns["path"].astype(object)})
            found = Features(arrays["features"], images, json.loads(str(arrays["about"])))
    except FileNotFoundError as error:
        raise InputError(f"{folder} holds no features.npz: `mmt embed` writes one") from error
    except Exception as error:  # a broken or hostile archive can fail in any way
        raise InputError(f"{file} does not hold features ({error}): remove it, and embed anew") from error
    if len(found.vectors) != len(images):
        raise InputError(f"{file} holds {len(found.vectors)} features of {len(images)} images: embed anew")
    return found


def search(
    known: Features,
    files: Sequence[str | Path] = (),
    checkpoint: Path | None = None,
    *,
    top: int = 10,
    rerank: bool = False,
    camera_rule: bool = False,
) -> pd.DataFrame:
    """Rank embedded images by their distance to queries.

    Args:
        known: The embedded images.
        files: Images to search for among all of `known`; one that is among them is left out of its own answers. Without
            any, the data set's own queries are searched for in its gallery, by the protocol: without junk, and by the
            camera rule.
        checkpoint: The weights of `known`, where they no longer lie where they were; read for other images only.
        top: Answers per query.
        rerank: k-reciprocal re-ranked distances (k1 = 20, k2 = 6, λ = 0.3) instead of Euclidean ones.
        camera_rule: Leave out answers of the query's identity *and* camera.

    Returns:
        Columns query, rank (from 1), path, distance, same_camera, right (missing where unknown); paths are relative to
        the data set's root, absolute for a query from elsewhere.

    Raises:
        InputError: Nothing to rank, other weights than those of `known`, images that cannot be read, or a camera rule
            without identities and cameras.
    """
    images, root = known.images, known.about["data"]["root"]
    if top < 1:
        raise InputError(f"top = {top}: expected 1 or more answers")
    if files:
        asked, wanted = _asked(known, files, checkpoint)
        gallery = images
    else:
        asked = images[images["split"] == "query"].assign(row=-1)  # the protocol knows no image twice
        gallery, wanted = (
            images[(images["split"] == "gallery") & (images["pid"] >= 0)],
            known.vectors[asked.index],
        )
        camera_rule = True
        if not (len(asked) and len(gallery)):
            raise InputError(f"{root} has no queries and gallery of its own: name the images to search for")
    cameras = images["camid"].nunique() > 1
    if camera_rule and not (cameras and (asked["pid"] >= 0).all()):
        raise InputError(
            "the camera rule needs camera numbers of at least 2, and the identity of every query"
        )
    pair = torch.from_numpy(wanted), torch.from_numpy(known.vectors[gallery.index])
    if rerank:
        blocks, scale = [(0, retrieval.rerank(*pair))], None
    else:
        points = centred(*pair, dtype=torch.float64)
        blocks, scale = distance_blocks(*points), float(points[1].scale)
    (pids, camids), place = gallery[["pid", "camid"]].to_numpy().T, gallery.index.to_numpy()
    trained, tables = (gallery["split"] == "train").to_numpy(), []
    for start, block in blocks:
        rows = asked[start : start + len(block)]
        pid, camid, own = (rows[name].to_numpy()[:, None] for name in ("pid", "camid", "row"))
        # People of training and of the test differ, even where their numbers agree.
        told = (pid >= 0) & (pids >= 0) & ((rows["split"] == "train").to_numpy()[:, None] == trained)
        right, same = told & (pid == pids), camid == camids
        block[torch.from_numpy((camera_rule & right & same) | (own == place))] = torch.inf
        nearest = block.topk(min(top, block.shape[1]), largest=False)
        i, rank = np.nonzero(nearest.values.isfinite().numpy())
        j, distances = nearest.indices.numpy()[i, rank], nearest.values.numpy()[i, rank]
        answers = {
            "query": rows["path"].to_numpy()[i],
            "rank": rank + 1,
            "path": gallery["path"].to_numpy()[j],
        }
        answers["distance"] = (distances if scale is None else np.sqrt(distances) / scale).round(6)
        answers["same_camera"] = pd.arrays.BooleanArray(same[i, j], ~(cameras & (camid[i, 0] >= 0)))
        answers["right"] = pd.arrays.BooleanArray(right[i, j], ~told[i, j])
        tables.append(pd.DataFrame(answers))
    ranks = pd.concat(tables, ignore_index=True)
    if empty := sorted(set(asked["path"]) - set(ranks["query"])):
        raise InputError(
            f"nothing to rank for {some(empty)}: no image of {root} is left besides the query's own"
        )
    return ranks


def _asked(
    known: Features, files: Sequence[str | Path], checkpoint: Path | None
) -> tuple[pd.DataFrame, np.ndarray]:
    """Image files as rows of a table like `Features.images`, and their features (Q, D)."""
    root, place = Path(known.about["data"]["root"]), {path: i for i, path in enumerate(known.images["path"])}
    real = [Path(os.path.realpath(os.path.expanduser(file))) for file in files]
    inside = [
        place.get(file.relative_to(root).as_posix()) if file.is_relative_to(root) else None for file in real
    ]
    vectors = np.empty((len(files), known.vectors.shape[1]), np.float32)
    new, rows = [i for i, row in enumerate(inside) if row is None], []
    if new or checkpoint:
        used, settings = weights_of(known, checkpoint), Settings.of(known.about["settings"])
    if new:
        pixels = load_images("/", [str(real[i]) for i in new], settings.height, settings.width)
        vectors[new] = extract(settings, [open_network(used, gain=settings.gain)], pixels)[0]
    for i, (file, row) in enumerate(zip(real, inside)):
        if row is None:
            rows.append({"path": str(file), "split": "", "pid": NO_LABEL, "camid": NO_LABEL, "row": -1})
        else:
            vectors[i] = known.vectors[row]
            rows.append(known.images.loc[row].to_dict() | {"row": row})
    return pd.DataFrame(rows), vectors


def weights_of(known: Features, checkpoint: Path | None = None) -> Path:
    """The weights that made features: where they lay, or where they are said to lie now; refused if they are others."""
    used = Path(checkpoint or known.about["checkpoint"])
    if checkpoint is None and not used.is_file():
        raise InputError(f"{used}, the weights of these features, are gone: say where by --checkpoint")
    if _sha256(used) != known.about["sha256"]:
        raise InputError(
            f"{used} are other weights than those of the features: embed the images anew with them"
        )
    return used


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _key(about: dict[str, Any]) -> list[Any]:
    """What features depend on, wherever images and weights lie."""
    seen = [about["settings"][name] for name in ("height", "width", "precision", "gain")]
    return [about["sha256"], about["data"]["fingerprint"], about["splits"], seen]
