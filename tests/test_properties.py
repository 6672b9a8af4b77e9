"""Properties that hold for any input, on generated cases: a clear refusal or a result of the promised form.

A few fixed cases by default; `--hypothesis-profile=thorough` draws over 10,000 new ones.
"""

from __future__ import annotations

import copy
import functools
import io
import math
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, example, given, note
from hypothesis import strategies as st
from PIL import Image

from mmtlib import InputError
from mmtlib.batches import augment, identity_batches
from mmtlib.clustering import classifier_weights, dbscan, dbscan_eps, dbscan_labels, kmeans
from mmtlib.config import METHODS, PROFILES, Settings, config_hash, make_settings, parse_override
from mmtlib.data.readers import ReIDDataset, read_dataset
from mmtlib.data.tasks import load_images
from mmtlib.ema import update_mean_network
from mmtlib.files import read_json, read_lines
from mmtlib.jaccard import jaccard_similarity
from mmtlib.losses import soft_cross_entropy, soft_softmax_triplet, softmax_triplet
from mmtlib.matrix.file import read_matrix
from mmtlib.networks import build_network, load_network, save_network
from mmtlib.networks.weights import read_state_dict
from mmtlib.retrieval import evaluate_distances, evaluate_retrieval, rerank

HUGE = 1e15  # squares of larger features leave float32


def refusal(call: Callable[[], Any]) -> Any:
    """The result of a call, or None after a refusal that says something."""
    try:
        return call()
    except InputError as error:
        note(f"refused: {error}")
        assert len(str(error)) > 15
        return None


# Arrays


FORMS = ("array", "fortran", "strided", "backwards", "read-only", "tensor", "bfloat16", "transposed tensor")


def as_form(array: np.ndarray, form: str) -> Any:
    """The same numbers in another guise."""
    if form == "fortran":
        return np.asfortranarray(array)
    if form == "strided":
        return np.repeat(array, 2, axis=-1)[..., ::2] if array.ndim else array
    if form == "backwards":
        return array[::-1].copy()[::-1] if array.ndim else array
    if form == "read-only":
        array = array.copy()
        array.flags.writeable = False
    if "tensor" in form or form == "bfloat16":
        tensor = torch.tensor(np.ascontiguousarray(array))
        tensor = tensor.bfloat16() if form == "bfloat16" and tensor.is_floating_point() else tensor
        return tensor.T.contiguous().T if form.startswith("transposed") and tensor.ndim == 2 else tensor
    return array


@st.composite
def numbers(draw, shape: tuple[int, ...], kinds: str = "fdeib", largest: float = 10.0) -> np.ndarray:
    """Numbers of any type; whole ones often, so that rows and distances repeat."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    array = rng.normal(size=shape) * largest / 4
    if draw(st.booleans()):
        array = np.rint(array / largest * 8)
    if len(shape) == 2 and shape[0] > 1 and draw(st.booleans()):
        array[rng.integers(shape[0])] = array[rng.integers(shape[0])]
    kind = {"f": "float32", "d": "float64", "e": "float16", "i": "int64", "b": "int8"}[draw(st.sampled_from(kinds))]
    return np.asarray(array.clip(-100, 100) if kind in ("float16", "int8") else array).astype(kind)


@st.composite
def features(draw, least: int = 1, most: int = 14, *, zero: bool = True) -> Any:
    """Features (N, D) that every function has to take, in any form."""
    shape = draw(st.integers(least, most)), draw(st.integers(1, 6))
    array = draw(numbers(shape, largest=draw(st.sampled_from([1e-3, 1.0, 10.0, HUGE]))))
    if not zero:
        array[(array == 0).all(axis=1), 0] = 1
    return as_form(array, draw(st.sampled_from(FORMS)))


@st.composite
def odd(draw) -> Any:
    """Any array at all: wrong shapes and types, nothing in it, NaN, infinity."""
    shape = tuple(draw(st.lists(st.integers(0, 5), max_size=3)))
    array = draw(numbers(shape))
    if array.size and array.dtype.kind == "f" and draw(st.booleans()):
        array.flat[draw(st.integers(0, array.size - 1))] = draw(st.sampled_from([np.nan, np.inf, -np.inf]))
    if draw(st.integers(0, 9)) == 0:
        return array.astype(draw(st.sampled_from(["U8", "O", "c8", "?"])))
    return as_form(array, draw(st.sampled_from(FORMS)))


@st.composite
def identities(draw, size: int, *, least: int = -1, most: int = 4, kinds: str = "ib") -> Any:
    array = np.array(draw(st.lists(st.integers(least, most), min_size=size, max_size=size)), np.int64)
    array = array.astype({"i": np.int64, "b": np.int8}[draw(st.sampled_from(kinds))])
    return as_form(array, draw(st.sampled_from(("array", "strided", "read-only", "tensor"))))


def array_of(values: Any) -> np.ndarray:
    return values.double().numpy() if isinstance(values, torch.Tensor) else np.asarray(values).astype(np.float64)


# Clustering and search


@given(st.data())
def test_kmeans_labels_are_a_partition_with_its_means(data):
    x = data.draw(features())
    k = data.draw(st.integers(1, len(x)))
    labels, centres = kmeans(x, k, data.draw(st.integers(0, 2**31)))
    assert type(labels) is type(centres) is (torch.Tensor if isinstance(x, torch.Tensor) else np.ndarray)
    labels, centres = np.asarray(labels), np.asarray(centres)
    assert labels.dtype == np.int64 and sorted(set(labels.tolist())) == list(range(k))
    assert centres.shape == (k, x.shape[1]) and centres.dtype in (np.float32, np.float64)
    for label, centre in enumerate(centres):
        members = array_of(x)[labels == label]
        assert np.allclose(members.mean(axis=0), centre, rtol=1e-3, atol=1e-3 * max(1e-6, np.abs(array_of(x)).max()))


@given(st.data())
def test_kmeans_repeats_itself_and_refuses_impossible_numbers(data):
    x, seed, k = data.draw(features()), data.draw(st.integers(0, 99)), data.draw(st.integers(-2, 20))
    found = refusal(lambda: kmeans(x, k, seed))
    assert (found is not None) == (1 <= k <= len(x))
    if found is not None:
        assert all(np.array_equal(a, b) for a, b in zip(found, kmeans(x, k, seed)))


@given(features(zero=False), st.integers(1, 25), st.integers(1, 25))
def test_jaccard_similarity_is_symmetric_with_a_unit_diagonal(x, k1, k2):
    similarity = jaccard_similarity(x, k1, k2)
    dense = similarity.toarray()
    assert similarity.shape == (len(x), len(x)) and similarity.dtype == np.float32
    assert (dense == dense.T).all() and (dense.diagonal() == 1).all()
    assert (similarity.data > 0).all() and (similarity.data <= 1).all()
    assert (np.diff(similarity.indptr) >= 1).all() and similarity.has_sorted_indices


@given(features(least=2, zero=False), st.integers(1, 8), st.floats(0.01, 0.99), st.integers(1, 5))
def test_dbscan_labels_are_a_partition(x, k1, eps, min_samples):
    labels = dbscan(x, eps, min_samples, k1, 2)
    assert labels.shape == (len(x),) and labels.dtype == np.int64
    assert sorted(set(labels.tolist()) - {-1}) == list(range(labels.max() + 1))
    dense = 1 - jaccard_similarity(x, k1, 2).toarray()
    cores = (dense <= eps).sum(axis=1) >= min_samples
    assert (labels[cores] >= 0).all(), "a core image is never noise"
    near = (dense <= eps) & cores[:, None] & cores[None]
    assert (labels[np.nonzero(near)[0]] == labels[np.nonzero(near)[1]]).all(), "cores within eps share a label"
    assert all((dense[i] <= eps)[cores].any() for i in np.flatnonzero(labels >= 0)), "others touch a core"


@given(features(least=2, zero=False), st.floats(1e-4, 1.0))
def test_the_radius_is_a_distance_or_refused(x, rho):
    similarity = jaccard_similarity(x, 5, 1)
    eps = refusal(lambda: dbscan_eps(similarity, rho))
    if eps is not None:
        assert 0 < eps < 1 and dbscan_labels(similarity, eps, 2).shape == (len(x),)


@given(st.data())
def test_classifier_weights_have_unit_length(data):
    x = data.draw(features())
    labels = data.draw(identities(len(x), most=3))
    weights = refusal(lambda: classifier_weights(x, labels))
    if weights is not None:
        weights = np.asarray(weights)
        assert weights.shape == (int(np.max(array_of(labels))) + 1, x.shape[1])
        assert weights.dtype == np.float32
        assert np.allclose(np.linalg.norm(weights.astype(float), axis=1), 1, atol=1e-5)


@st.composite
def retrieval_ids(draw, queries: int, gallery: int) -> tuple:
    sizes = (queries, gallery, queries, gallery)
    return tuple(draw(identities(n, most=2 if i > 1 else 4)) for i, n in enumerate(sizes))


def check_scores(scores: Any, queries: int) -> None:
    assert 0 <= scores.mean_ap <= 1 and 1 <= scores.num_scored <= queries
    assert len(scores.cmc) == 50 and (np.diff(scores.cmc) >= 0).all() and 0 <= scores.cmc[0] <= scores.cmc[-1] <= 1
    assert (np.isnan(scores.average_precisions) == (scores.first_match_ranks == 0)).all()


@given(st.data())
def test_scores_are_shares_and_do_not_depend_on_the_order_of_the_gallery(data):
    q, g = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 9))
    distances, ids = data.draw(numbers((q, g))), data.draw(retrieval_ids(q, g))
    given_ = as_form(distances, data.draw(st.sampled_from(FORMS)))
    scores = refusal(lambda: evaluate_distances(given_, *ids))
    order = np.array(data.draw(st.permutations(range(g))))
    shuffled = [i[order] if len(i) == g and n % 2 else i for n, i in enumerate(ids)]
    again = refusal(lambda: evaluate_distances(given_[:, order], *shuffled))
    assert (scores is None) == (again is None)
    if scores is not None:
        check_scores(scores, q)
        assert scores.mean_ap == again.mean_ap and (scores.cmc == again.cmc).all()
        best = evaluate_distances(np.where(array_of(ids[0])[:, None] == array_of(ids[1]), 0.0, 1.0), *ids)
        assert best.mean_ap == 1 >= scores.mean_ap, "the truth scores 1"


@given(st.data())
def test_retrieval_by_features_is_retrieval_by_their_distances(data):
    q, g, d = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 9)), data.draw(st.integers(1, 4))
    queries, gallery = (np.rint(data.draw(numbers((n, d), "fd"))) for n in (q, g))  # whole: no rounding
    ids = data.draw(retrieval_ids(q, g))
    forms = [data.draw(st.sampled_from(FORMS)) for _ in range(2)]
    scores = refusal(lambda: evaluate_retrieval(*map(as_form, (queries, gallery), forms), *ids))
    distances = ((queries[:, None] - gallery[None]) ** 2).sum(axis=2)
    expected = refusal(lambda: evaluate_distances(distances, *ids))
    assert (scores is None) == (expected is None)
    if scores is not None:
        check_scores(scores, q)
        assert scores.mean_ap == expected.mean_ap


@given(st.data())
def test_reranked_distances_are_shares(data):
    d = data.draw(st.integers(1, 5))
    queries, gallery = (data.draw(numbers((data.draw(st.integers(1, 6)), d))) for _ in range(2))
    weight = data.draw(st.floats(0, 1))
    k1, k2 = data.draw(st.integers(1, 25)), data.draw(st.integers(1, 9))
    found = refusal(lambda: rerank(queries, gallery, k1, k2, weight))
    assert (found is None) == (not (queries.any(axis=1).all() and gallery.any(axis=1).all()))
    if found is not None:
        assert found.shape == (len(queries), len(gallery)) and found.dtype == np.float32
        assert np.isfinite(found).all() and found.min() >= -1e-5 and found.max() <= 1 + 1e-5


# Training


@st.composite
def batch(draw) -> tuple:
    """Two sets of features (B, D) and identities (B) of at least two people; duplicates and large values too."""
    b, d = draw(st.integers(2, 10)), draw(st.integers(1, 6))
    largest = draw(st.sampled_from([0.0, 1e-20, 1e-4, 1.0, 100.0, 1e6]))
    dtype = draw(st.sampled_from([torch.float32, torch.float64, torch.bfloat16, torch.float16]))
    arrays = [draw(numbers((b, d), "fd", largest=largest or 1.0)) * (largest > 0) for _ in range(2)]
    tensors = [as_form(a.astype(np.float64), draw(st.sampled_from(["tensor", "transposed tensor"]))) for a in arrays]
    tensors = [t.clamp(-1e4, 1e4).to(dtype) if dtype == torch.float16 else t.to(dtype) for t in tensors]
    pids = torch.tensor(np.asarray(draw(identities(b, least=0, kinds="i"))))
    assume(len(pids.unique()) > 1)
    return *tensors, pids


LOSSES = {
    "soft cross-entropy": lambda x, y, pids: soft_cross_entropy(x, y),
    "hard triplet": lambda x, y, pids: softmax_triplet(x, pids),
    "soft triplet": soft_softmax_triplet,
}


@pytest.mark.parametrize("name", LOSSES)
@given(batch())
def test_losses_and_their_gradients_are_finite(name, inputs):
    x, y, pids = inputs
    x, y = x.detach().requires_grad_(), y.detach().requires_grad_()
    loss = LOSSES[name](x, y, pids)
    loss.backward()
    assert loss.shape == () and bool(torch.isfinite(loss)) and float(loss.detach()) >= -1e-6
    assert x.grad.shape == x.shape and bool(torch.isfinite(x.grad).all())
    assert y.grad is None, "no gradient reaches the teacher"


@given(st.integers(0, 99), st.floats(0, 0.9999), st.integers(0, 10**7), st.sampled_from([1e-30, 1.0, 1e30]))
def test_a_mean_lies_between_what_it_was_and_its_network(seed, alpha, step, scale):
    generator = torch.Generator().manual_seed(seed)
    mean, network = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)
    with torch.no_grad():
        for p in [*mean.parameters(), *network.parameters()]:
            p.copy_(torch.randn(p.shape, generator=generator) * scale)
    before = copy.deepcopy(mean)
    update_mean_network(mean, network, alpha, step)
    for new, old, now in zip(mean.parameters(), before.parameters(), network.parameters()):
        room = 1e-6 * (old.abs() + now.abs())
        assert bool(((new >= torch.minimum(old, now) - room) & (new <= torch.maximum(old, now) + room)).all())
    if step == 0:
        assert all(torch.equal(a, b) for a, b in zip(mean.parameters(), network.parameters()))


@functools.cache
def small(width: int, classes: int, group: int | None) -> torch.nn.Module:
    return build_network("small", classes, width=width, bn_group=group)


@given(
    st.integers(1, 4),
    st.integers(1, 5),
    st.integers(0, 40),
    st.integers(0, 40),
    st.integers(0, 5),
    st.booleans(),
)
def test_forward_passes_have_the_promised_shapes(width, classes, height, columns, images, training):
    network = small(width, classes, None).train(training)
    x = torch.randn(images, 3, height, columns, generator=torch.Generator().manual_seed(0))
    found = refusal(lambda: network(x))
    assert (found is None) == (min(height, columns) == 0 or (training and images < 2))
    if found is None or images == 0:
        return
    outputs, shapes = (
        (found, [(images, 8 * width), (images, classes)]) if training else ([found], [(images, 8 * width)])
    )
    assert [tuple(out.shape) for out in outputs] == shapes and all(bool(torch.isfinite(o).all()) for o in outputs)
    if not training:
        lengths = found.norm(dim=1)
        assert bool((((lengths - 1).abs() < 1e-4) | (lengths < 1e-6)).all())


OPTIONS = {
    "name": st.sampled_from(["small", "resnet", "", "SMALL"]), "num_classes": st.integers(-2, 5),
    "gain": st.one_of(st.none(), st.floats()), "width": st.integers(-2, 4), "stem_stride": st.integers(0, 5),
    "bn_group": st.one_of(st.none(), st.integers(-2, 4)), "imagenet": st.sampled_from([None, "", "cache", "gone.pth"]),
}  # fmt: skip


@given(
    st.fixed_dictionaries(
        {k: OPTIONS[k] for k in ("name", "num_classes")},
        optional={k: OPTIONS[k] for k in OPTIONS if k not in ("name", "num_classes")},
    )
)
def test_networks_are_built_or_refused(options):
    network = refusal(lambda: build_network(**options))
    if network is not None:
        assert all(bool(torch.isfinite(p).all()) for p in network.parameters())


@given(st.data())
def test_batches_hold_labelled_images_of_as_many_people_as_there_are(data):
    n = data.draw(st.integers(0, 30))
    pids, camids = np.asarray(data.draw(identities(n))), np.asarray(data.draw(identities(n, least=0, most=2)))
    iterations, p, k = (data.draw(st.integers(least, 5)) for least in (0, 1, 1))
    found = refusal(lambda: identity_batches(pids, camids, iterations, p, k, np.random.default_rng(n)))
    assert (found is None) == (not (pids >= 0).any())
    if found is not None:
        assert found.shape == (iterations, p * k) and found.dtype == np.int64
        people = pids[found].reshape(iterations, p, k)
        assert (people >= 0).all() and (people == people[..., :1]).all()
        assert all(len(set(row[:, 0])) == min(p, len(set(pids[pids >= 0].tolist()))) for row in people)


@given(
    st.tuples(*[st.integers(1, 12)] * 3),
    st.integers(0, 4),
    st.floats(0, 1),
    st.booleans(),
    st.integers(0, 99),
)
def test_views_are_finite_and_repeat_themselves(shape, padding, erasing, flip, seed):
    b, h, w = shape
    images = torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (b, 3, h, w), dtype=np.uint8))
    options = {"flip": flip, "padding": padding, "erasing": erasing}
    views = [augment(images, torch.Generator().manual_seed(seed), **options) for _ in range(2)]
    assert views[0].shape == images.shape and views[0].dtype == torch.float32
    assert bool(torch.isfinite(views[0]).all()) and torch.equal(*views)


ODD = {
    "kmeans": lambda d: kmeans(d(), d(st.integers(-1, 6)), 0),
    "jaccard_similarity": lambda d: jaccard_similarity(d(), d(st.integers(-1, 9)), d(st.integers(-1, 9))),
    "dbscan": lambda d: dbscan(d(), d(st.sampled_from([None, 0.5, 0, 1, np.nan])), d(st.integers(-1, 4))),
    "classifier_weights": lambda d: classifier_weights(d(), d()),
    "evaluate_retrieval": lambda d: evaluate_retrieval(d(), d(), *(d(ODD_IDS) for _ in range(4))),
    "evaluate_distances": lambda d: evaluate_distances(d(), *(d(ODD_IDS) for _ in range(4))),
    "rerank": lambda d: rerank(d(), d(), d(st.integers(-1, 9)), 2, d(st.sampled_from([0.3, -1, np.nan]))),
    "identity_batches": lambda d: identity_batches(d(), d(), 2, 2, 2, np.random.default_rng(0)),
}
ODD_IDS = st.one_of(odd(), st.integers(0, 5).flatmap(lambda n: identities(n)))


@pytest.mark.parametrize("name", ODD)
@given(data=st.data())
def test_odd_arrays_are_refused_or_served(name, data):
    """Nothing but a refusal or a result: no error of an index, a type or a library below."""
    refusal(lambda: ODD[name](lambda strategy=None: data.draw(odd() if strategy is None else strategy)))


@pytest.mark.parametrize("name", LOSSES)
@given(
    st.lists(st.integers(0, 4), max_size=3),
    st.lists(st.integers(0, 4), max_size=3),
    st.lists(st.integers(0, 4), max_size=2),
)
def test_losses_refuse_shapes_that_do_not_fit(name, x, y, pids):
    loss = refusal(lambda: LOSSES[name](torch.ones(x), torch.ones(y), torch.arange(math.prod(pids)).reshape(pids)))
    assert loss is None or bool(torch.isfinite(loss))


# Settings and files

SCALARS = (st.none(), st.booleans(), st.integers(-3, 300), st.floats(), st.text(max_size=8))
VALUES = st.one_of(
    *SCALARS,
    st.sampled_from([*METHODS, "resnet50"]),
    st.lists(st.integers(0, 9), max_size=3),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)
SETTING = st.one_of(st.sampled_from([*Settings.__dataclass_fields__]), st.text(max_size=8))


@given(st.sampled_from([*PROFILES, "fast"]), st.dictionaries(SETTING, VALUES, max_size=4))
@example("quick", {"lr": float("nan")})
def test_settings_are_whole_or_refused(profile, changes):
    assume("profile" not in changes)
    settings = refusal(lambda: make_settings(profile, **changes))
    if settings is not None:
        assert Settings(**settings.to_dict()) == settings
        assert len(config_hash(settings.to_dict())) == 12


@given(
    st.one_of(
        st.text(max_size=30),
        st.tuples(SETTING, st.one_of(VALUES.map(str), st.text(max_size=12))).map("=".join),
    )
)
@example("source_milestones=" + "[" * 5000)
@example("seed=" + "9" * 5000)
def test_overrides_are_parsed_or_refused(text):
    found = refusal(lambda: parse_override(text))
    assert found is None or found[0] in Settings.__dataclass_fields__


YAML = st.recursive(
    VALUES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
KEYS = ("profile", "tasks", "methods", "seeds", "clusters", "backbones", "set", "metods")
GOOD = {"tasks": [["plaza", "station"]], "methods": ["mmt"], "seeds": [1], "profile": "smoke"}


@given(st.one_of(
    st.binary(max_size=60), st.text(max_size=60).map(str.encode),
    st.dictionaries(st.sampled_from(KEYS), YAML, max_size=3).map(lambda d: repr_yaml(GOOD | d)),
    YAML.map(lambda value: repr_yaml(value)),
))  # fmt: skip
def test_matrix_files_are_read_or_refused(content):
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "m.yaml")
        file.write_bytes(content)
        for cell in refusal(lambda: read_matrix(file, check_data=False)) or ():
            assert isinstance(cell.settings, Settings) and cell.profile in PROFILES


def repr_yaml(value: Any) -> bytes:
    import yaml

    return yaml.safe_dump(value, allow_unicode=True).encode("utf-8", "surrogatepass")


@given(st.one_of(st.binary(max_size=40), st.text(max_size=40).map(lambda t: t.encode("utf-8", "surrogatepass"))))
def test_json_files_are_read_or_refused(content):
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "a.json")
        file.write_bytes(content)
        refusal(lambda: read_json(file))
        assert isinstance(refusal(lambda: read_lines(file)) or [], list)


# Data sets

CHARACTERS = st.characters(exclude_categories=["Cs"], exclude_characters="/\0")
NAME = st.text(CHARACTERS, min_size=1, max_size=12).filter(lambda t: t.strip(".") != "")
MARKET = st.from_regex(r"\A(-1|\d{1,25})_c\d{1,22}s\d_\d{1,6}_\d\d\.(jpg|png)\Z")
DUKE = st.from_regex(r"\A\d{1,25}_c\d{1,22}_f\d{1,7}\.jpg\Z")
ROW = st.tuples(
    NAME,
    st.integers(-3, 10**20),
    st.integers(-3, 10**20),
    st.sampled_from("train query gallery test".split()),
)
LINE = st.one_of(
    st.text(max_size=30),
    st.from_regex(r"\A\d{4}/\d{4}_\d{3}_\d{1,20}_[a-z]{1,4}\.jpg \d{1,25}\Z"),
    st.just("0001/0001_000_01_a.jpg 1"),
)


def touch(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")


def boxes(names: Any) -> Any:
    """Three folders of empty files; the given names, some good, some not."""

    def write(root: Path, data: Any) -> None:
        for part in ("bounding_box_train", "query", "bounding_box_test"):
            for name in [data.draw(names), *data.draw(st.lists(st.one_of(names, NAME), max_size=2))]:
                if len(os.fsencode(name)) < 200:
                    touch(root / part / name)

    return write


def lists(root: Path, data: Any) -> None:
    for part in ("train", "test"):
        for name in ("0001/0001_000_01_a.jpg", "0002/0002_000_02_a.jpg"):
            touch(root / part / name)
    for name in ("train", "val", "query", "gallery"):
        lines = ["0001/0001_000_01_a.jpg 1", *data.draw(st.lists(LINE, max_size=2))]
        (root / f"list_{name}.txt").write_text("\n".join(lines), encoding="utf-8", errors="surrogateescape")


def table(root: Path, data: Any) -> None:
    head = b"path,pid,camid,split\n"
    rows = data.draw(st.lists(ROW, max_size=3))
    for name, *_ in rows:
        touch(root / name)
    text = "".join(",".join(map(str, row)) + "\n" for row in rows).encode()
    text += data.draw(st.one_of(st.just(b""), st.binary(max_size=30)))
    (root / "list.csv").write_bytes(text if data.draw(st.integers(0, 5)) == 0 else head + text)


def plain(root: Path, data: Any) -> None:
    for name in data.draw(st.lists(NAME, max_size=3)):
        touch(root / data.draw(st.sampled_from(["", "a", "a/b", ".hidden"])) / f"{name}.png")


LAYOUTS = {"market": boxes(MARKET), "duke": boxes(DUKE), "msmt": lists, "csv": table, "plain": plain}


@pytest.mark.parametrize("layout", LAYOUTS)
@given(data=st.data())
def test_folders_are_read_whole_or_refused(layout, data):
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder, "data")
        root.mkdir()
        LAYOUTS[layout](root, data)
        dataset: ReIDDataset | None = refusal(lambda: read_dataset(root))
        for part in (dataset.train, dataset.query, dataset.gallery) if dataset else ():
            assert len(part.paths) == len(part.pids) == len(part.camids)
            assert part.pids.dtype == part.camids.dtype == np.int64
            assert (part.pids >= -1).all() and (part.camids >= 0).all()
            assert all((root / path).is_file() and ".." not in Path(path).parts for path in part.paths)
        assert dataset is None or len(dataset.fingerprint()) == 64


@functools.cache
def image(kind: str) -> bytes:
    pixels = Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8))
    pixels = pixels.convert({"GIF": "P", "TIFF": "I;16"}.get(kind, "RGB")) if kind != "TIFF" else pixels.convert("L")
    buffer = io.BytesIO()
    pixels.save(buffer, kind)
    return buffer.getvalue()


@st.composite
def damaged(draw, whole: bytes) -> bytes:
    """A file with some bytes changed, and perhaps its end cut off."""
    content = bytearray(whole[: draw(st.integers(0, len(whole)))] if draw(st.booleans()) else whole)
    for place, value in draw(st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=6)):
        if content:
            content[place % len(content)] = value
    return bytes(content)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM"])
@pytest.mark.filterwarnings("ignore")
@given(data=st.data())
def test_damaged_images_are_decoded_or_refused_by_name(kind, data):
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "a.jpg").write_bytes(data.draw(damaged(image(kind))))
        images = refusal(lambda: load_images(folder, ["a.jpg"], 4, 2))
        assert images is None or (images.shape == (1, 3, 4, 2) and images.dtype == torch.uint8)


@functools.cache
def saved(kind: str) -> bytes:
    network = build_network("small", 2, width=1)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "a")
        if kind == "safetensors":
            save_network(network, file)
        else:
            torch.save({"state_dict": {"a": torch.ones(2)}, "epoch": 1}, file)
        return file.read_bytes()


@pytest.mark.parametrize("kind", ["safetensors", "pth"])
@pytest.mark.filterwarnings("ignore")
@given(data=st.data())
def test_damaged_networks_are_read_or_refused_by_name(kind, data):
    reader = load_network if kind == "safetensors" else read_state_dict
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "network_1")
        file.write_bytes(data.draw(damaged(saved(kind))))
        try:
            reader(file)
        except InputError as error:
            assert str(file) in str(error)
