"""Features of any images as a file that other programs open, and searches in it.

`features.npz` holds `features` (N, D), the columns of a table of the images, and `about`: what the features depend on.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from mmtlib import InputError, retrieval
from mmtlib.config import METHODS, Settings
from mmtlib.data.readers import Split
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
    images: pd.DataFrame  # a row per image: path (relative to the data set's root), split, pid (−1: unknown), camid
    about: dict[str, Any]  # weights, their SHA-256, settings, the data set's root and fingerprint, images per split


def embed(
    data: str, checkpoint: Path, settings: Settings, out: Path, say: Callable[[str], None], part: int = PART
) -> Features:
    """Embed all images of a data set, and keep them as `features.npz` in a folder.

    What was embedded before an interrupt is not embedded again, and a file of the same images, weights and settings is
    taken as it is. Memory holds `part` decoded images and all features.

    Args:
        data, checkpoint: As `open_dataset` and `networks.open_network` read them.
        settings: How the network is used, as `networks.settings_of` finds it.
        say: Called with a line per `part` images.

    Raises:
        InputError: Images that cannot be read, no image, or no weights.
    """
    network = open_network(checkpoint, gain=settings.gain)
    dataset = open_dataset(data, settings)
    images = pd.concat([_table(split, name) for name, split in dataset.parts.items()], ignore_index=True)
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


def _table(split: Split, name: str) -> pd.DataFrame:
    return pd.DataFrame(dict(zip(COLUMNS, (_names(split.paths), name, split.pids, split.camids))))


def _names(paths: Sequence[str]) -> pd.Series:
    """A column of file names, which need not be text: pandas' type for strings refuses such where it has PyArrow."""
    return pd.Series(paths, dtype=object)


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
            images = pd.DataFrame(columns | {"path": _names(columns["path"].tolist())})
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
        asked, vectors = _asked(known, files, checkpoint)
        gallery = images
    else:
        asked = images[images["split"] == "query"].assign(row=-1)  # the protocol knows no image twice
        vectors = known.vectors[asked.index]
        gallery = images[(images["split"] == "gallery") & (images["pid"] >= 0)]
        camera_rule = True
        if not (len(asked) and len(gallery)):
            raise InputError(f"{root} has no queries and gallery of its own: name the images to search for")
    cameras = images["camid"].nunique() > 1
    if camera_rule and not (cameras and (asked["pid"] >= 0).all()):
        need = "camera numbers of at least 2, and the identity of every query"
        raise InputError(f"the camera rule needs {need}")
    if not cameras:
        asked = asked.assign(camid=NO_LABEL)  # one number for all tells of no camera
    found = []
    for start, distances in _distances(vectors, known.vectors[gallery.index], rerank):
        queries = asked[start : start + len(distances)]
        found.append(_answers(queries, gallery, distances, top, camera_rule))
    ranks = pd.concat(found, ignore_index=True)
    if empty := sorted(set(asked["path"]) - set(ranks["query"])):
        left = f"no image of {root} is left besides the query's own"
        raise InputError(f"nothing to rank for {some(empty)}: {left}")
    return ranks


def _asked(known: Features, files: Sequence[str | Path], checkpoint: Path | None) -> tuple[pd.DataFrame, np.ndarray]:
    """Image files as a table like `Features.images`, with their `row` there (−1: none), and their features (Q, D)."""
    real = [os.path.realpath(os.path.expanduser(file)) for file in files]
    root, images = known.about["data"]["root"], known.images
    place = {os.path.join(root, path): row for row, path in enumerate(images["path"])}
    row = np.array([place.get(file, -1) for file in real])
    new, vectors = row < 0, known.vectors[row]
    elsewhere = pd.DataFrame({"path": _names(real), "split": "", "pid": NO_LABEL, "camid": NO_LABEL})
    chosen = np.where(new, len(images) + np.arange(len(row)), row)
    asked = pd.concat([images, elsewhere], ignore_index=True).loc[chosen].assign(row=row)
    if new.any() or checkpoint:
        used, settings = weights_of(known, checkpoint), Settings.of(known.about["settings"])
    if new.any():
        pixels = load_images("/", asked["path"][new].tolist(), settings.height, settings.width)
        vectors[new] = extract(settings, [open_network(used, gain=settings.gain)], pixels)[0]
    return asked, vectors


def _distances(queries: np.ndarray, gallery: np.ndarray, rerank: bool) -> Iterator[tuple[int, torch.Tensor]]:
    """Distances of queries (Q, D) to a gallery (G, D), a block of queries at a time: the first one's place, (b, G)."""
    pair = torch.from_numpy(queries), torch.from_numpy(gallery)
    if rerank:
        yield 0, retrieval.rerank(*pair)
        return
    rows, columns = centred(*pair, dtype=torch.float64)
    for start, squared in distance_blocks(rows, columns):
        yield start, squared.sqrt() / columns.scale


def _answers(
    queries: pd.DataFrame, gallery: pd.DataFrame, distances: torch.Tensor, top: int, camera_rule: bool
) -> pd.DataFrame:
    """The rows of `search` for some queries (b) and their distances to the gallery (b, G), which are changed."""
    pids, camids, trained = (
        gallery["pid"].to_numpy(),
        gallery["camid"].to_numpy(),
        gallery["split"] == "train",
    )
    pid, camid, own = (queries[name].to_numpy()[:, None] for name in ("pid", "camid", "row"))
    # People of training and of the test differ, even where their numbers agree.
    comparable = (queries["split"] == "train").to_numpy()[:, None] == trained.to_numpy()
    told = (pid >= 0) & (pids >= 0) & comparable
    right, same_camera = told & (pid == pids), camid == camids
    left_out = (own == gallery.index.to_numpy()) | (camera_rule & right & same_camera)
    distances[torch.from_numpy(left_out)] = torch.inf
    nearest = distances.topk(min(top, distances.shape[1]), largest=False)
    i, rank = np.nonzero(nearest.values.isfinite().numpy())
    j = nearest.indices.numpy()[i, rank]
    return pd.DataFrame(
        {
            "query": _names(queries["path"].to_numpy()[i]),
            "rank": rank + 1,
            "path": _names(gallery["path"].to_numpy()[j]),
            "distance": nearest.values.numpy()[i, rank].round(6),
            "same_camera": pd.arrays.BooleanArray(same_camera[i, j], camid[i, 0] < 0),
            "right": pd.arrays.BooleanArray(right[i, j], ~told[i, j]),
        }
    )


def weights_of(known: Features, checkpoint: Path | None = None) -> Path:
    """The weights that made features: where they lay, or where they are said to lie now; refused if they are others."""
    used = Path(checkpoint or known.about["checkpoint"])
    if checkpoint is None and not used.is_file():
        raise InputError(f"{used}, the weights of these features, are gone: say where by --checkpoint")
    if _sha256(used) != known.about["sha256"]:
        other = "other weights than those of the features"
        raise InputError(f"{used} are {other}: embed the images anew with them")
    return used


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _key(about: dict[str, Any]) -> list[Any]:
    """What features depend on, wherever images and weights lie."""
    seen = [about["settings"][name] for name in ("height", "width", "precision", "gain")]
    return [about["sha256"], about["data"]["fingerprint"], about["splits"], seen]
