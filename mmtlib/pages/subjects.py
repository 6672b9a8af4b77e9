"""What `mmt noise` looks at: the pseudo labels of a run, or those of a network's features of any images."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mmtlib import InputError, clustering
from mmtlib.adaptation import stream_seed
from mmtlib.config import METHODS, Settings
from mmtlib.data.readers import ReIDDataset, read_image_folder
from mmtlib.data.tables import labels_of
from mmtlib.data.tasks import load_images, open_dataset
from mmtlib.evaluation import extract
from mmtlib.files import read_json
from mmtlib.networks import open_network
from mmtlib.noise.causes import read_attributes
from mmtlib.noise.summary import Subject
from mmtlib.runs.folder import RunFolder


def subject_of_run(folder: Path, clusters: int | None = None) -> Subject:
    """The pseudo labels that a run trained on; those of its network's features where it trained on none.

    Args:
        folder: A finished run's folder, `runs/<profile>/cache/<method>-<hash>`.
        clusters: K for a run without pseudo labels (direct transfer); None takes DBSCAN.
    """
    run = RunFolder(folder)
    if run.result is None:
        expected = "expected result.json, in runs/<profile>/cache/<run>"
        raise InputError(f"{folder} is not a finished run: {expected}")
    settings, last = Settings.of(read_json(folder / "config.json")), run.result["epochs"]
    if not (folder / "epochs").is_dir():
        network = folder / "network_1.safetensors"
        return subject_of_images(settings.target, network, settings, clusters=clusters)
    epochs = [run.epoch(number)["labels"].astype(np.int64) for number in range(1, last + 1)]
    features = run.epoch(max(1, last - 1))["features"].astype(np.float32)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    task = f"{settings.method}, {settings.source} → {settings.target}, seed {settings.seed}"
    note = f"The labels of epoch {last} of a run ({task})."
    dataset, size = open_dataset(settings.target, settings), (settings.height, settings.width)
    given = settings.clusters if METHODS[settings.method].clustering == "kmeans" else None
    pixels = load_images(dataset.root, dataset.train.paths, *size)
    return _subject(dataset, note, features=features, epochs=epochs, images=pixels, given=given)


def subject_of_images(
    images: str, checkpoint: Path, settings: Settings, labels: Path | None = None, clusters: int | None = None
) -> Subject:
    """Labels that clustering gives to images by a network's features.

    Args:
        images: A folder of images, a data set (its training images count), or an embedded domain's name.
        checkpoint: Weights of any kind that `networks.open_network` reads.
        settings: Image size, precision, DBSCAN's parameters; `networks.settings_of` finds those of a network.
        labels: A table with the columns `path,pid` and, if known, `camid`; paths relative to the folder of images.
        clusters: K for k-means; None takes DBSCAN with the authors' rule for eps.
    """
    dataset = _opened(images, settings, labels)
    if not len(dataset.train):
        raise InputError(f"{images} holds no training images")
    network = open_network(checkpoint, gain=settings.gain)
    pixels = load_images(dataset.root, dataset.train.paths, settings.height, settings.width)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    features = extract(settings, [network.to(device)], pixels.to(device))[0]
    if clusters is None:
        rho = settings.rho or clustering.authors_rho(len(features))
        found = clustering.dbscan(features, None, settings.min_samples, settings.k1, settings.k2, rho)
        how = "DBSCAN on the Jaccard distance, eps by the authors' rule"
    else:
        found, _ = clustering.kmeans(features, clusters, stream_seed(settings.seed, "clusters", 0))
        how = f"k-means with K = {clusters}"
    note = f"{how}, on the features of {checkpoint.name}."
    return _subject(dataset, note, features=features, epochs=[found], images=pixels, given=clusters)


def _subject(dataset: ReIDDataset, note: str, **known: Any) -> Subject:
    """A subject of a data set's training images; `known` are its other fields."""
    train = dataset.train
    return Subject(
        name=dataset.name,
        note=note,
        names=train.paths,
        camids=train.camids,
        pids=train.pids if (train.pids >= 0).any() else None,
        attributes=read_attributes(dataset, train.paths),
        data={"split": "train", "images": len(train), "fingerprint": dataset.fingerprint()},
        **known,
    )


def _opened(images: str, settings: Settings, labels: Path | None) -> ReIDDataset:
    """A data set, with identities and cameras from a table if given; images that it does not name have no identity."""
    images = str(Path(images).expanduser())
    if labels is None:
        return open_dataset(images, settings)
    try:
        dataset = open_dataset(images, settings)
    except InputError:  # plain images and these labels beside them, which alone make no data set
        if labels.resolve().parent != Path(images).resolve():
            raise
        dataset = read_image_folder(images)
    train = dataset.train
    pids, camids = labels_of(labels, dataset.root, train.paths)
    camids = np.where(camids < 0, train.camids, camids)
    return dataclasses.replace(dataset, train=dataclasses.replace(train, pids=pids, camids=camids))
