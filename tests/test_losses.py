"""The losses against loops written from the paper's formulas, and against the authors' code."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from mmtlib import InputError
from mmtlib.losses import (
    pairwise_distances,
    soft_cross_entropy,
    soft_softmax_triplet,
    softmax_triplet,
    triplet_targets,
)

REFERENCE = np.load(Path(__file__).parent / "reference" / "losses.npz")
CASES = sorted({name.split("_")[0] for name in REFERENCE.files})


def reference(case: str, name: str) -> torch.Tensor:
    return torch.from_numpy(np.asarray(REFERENCE[f"{case}_{name}"]))


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(
    "name", ["cross_entropy_smooth0.1", "soft_cross_entropy", "softmax_triplet", "soft_softmax_triplet"]
)
def test_value_and_gradient_equal_the_authors(case: str, name: str) -> None:
    labels = reference(case, "labels").long()
    student = reference(case, "logits" if "entropy" in name else "features").requires_grad_()
    loss = {
        "cross_entropy_smooth0.1": lambda: F.cross_entropy(student, labels, label_smoothing=0.1),
        "soft_cross_entropy": lambda: soft_cross_entropy(student, reference(case, "teacher_logits")),
        "softmax_triplet": lambda: softmax_triplet(student, labels),
        "soft_softmax_triplet": lambda: soft_softmax_triplet(student, reference(case, "teacher_features"), labels),
    }[name]()
    loss.backward()
    torch.testing.assert_close(loss.detach(), reference(case, name).reshape(()), rtol=1e-9, atol=0)
    gradient = reference(case, f"{name}_grad")
    assert (student.grad - gradient).norm() < 1e-9 * gradient.norm()


def loop_triplets(features: np.ndarray, pids: list[int]) -> list[tuple[int, int]]:
    """The farthest positive and the nearest negative of each anchor, by plain loops."""
    found = []
    for i, anchor in enumerate(features):
        distance = [math.dist(anchor, other) for other in features]
        positives = [j for j in range(len(pids)) if pids[j] == pids[i]]
        negatives = [j for j in range(len(pids)) if pids[j] != pids[i]]
        found.append((max(positives, key=distance.__getitem__), min(negatives, key=distance.__getitem__)))
    return found


def loop_target(features: np.ndarray, i: int, p: int, n: int) -> float:
    positive, negative = (
        math.exp(math.dist(features[i], features[p])),
        math.exp(math.dist(features[i], features[n])),
    )
    return negative / (positive + negative)


@pytest.mark.parametrize(("ids", "instances", "width"), [(2, 2, 1), (3, 1, 5), (4, 4, 8), (5, 2, 32)])
def test_triplets_equal_a_loop_from_the_formula(ids: int, instances: int, width: int) -> None:
    rng = np.random.default_rng(ids)
    pids = [i for i in range(ids) for _ in range(instances)]
    student, teacher = rng.normal(size=(2, len(pids), width))
    triplets = loop_triplets(student, pids)
    own = [loop_target(student, i, p, n) for i, (p, n) in enumerate(triplets)]
    soft = [loop_target(teacher, i, p, n) for i, (p, n) in enumerate(triplets)]
    hard_loss = -np.mean(np.log(own))
    soft_loss = -np.mean([t * math.log(s) + (1 - t) * math.log(1 - s) for t, s in zip(soft, own)])
    tensors = torch.from_numpy(student), torch.from_numpy(teacher), torch.tensor(pids)
    # An anchor that is its own positive has distance 1e-6 (the clamp before the root), not 0.
    assert softmax_triplet(tensors[0], tensors[2]).item() == pytest.approx(hard_loss, rel=1e-5)
    assert soft_softmax_triplet(*tensors).item() == pytest.approx(soft_loss, rel=1e-5)
    np.testing.assert_allclose(triplet_targets(tensors[0], tensors[2]), own, rtol=1e-5)


def test_soft_cross_entropy_equals_a_loop_and_its_minimum_is_the_teacher() -> None:
    rng = np.random.default_rng(0)
    student, teacher = rng.normal(size=(2, 6, 9))
    expected = 0.0
    for z, t in zip(student, teacher):
        p, q = np.exp(z) / np.exp(z).sum(), np.exp(t) / np.exp(t).sum()
        expected -= (q * np.log(p)).sum() / 6
    student, teacher = torch.from_numpy(student), torch.from_numpy(teacher)
    assert soft_cross_entropy(student, teacher).item() == pytest.approx(expected, rel=1e-12)
    assert soft_cross_entropy(teacher, teacher) < soft_cross_entropy(student, teacher) - 0.1


def test_no_gradient_reaches_the_teacher() -> None:
    student, teacher = (torch.randn(8, 4, requires_grad=True) for _ in range(2))
    pids = torch.arange(8) // 2
    (soft_cross_entropy(student, teacher) + soft_softmax_triplet(student, teacher, pids)).backward()
    assert teacher.grad is None
    assert student.grad is not None


def test_identical_features_have_finite_gradients() -> None:
    features = torch.ones(8, 4, requires_grad=True)
    loss = softmax_triplet(features, torch.arange(8) // 2)
    loss.backward()
    assert loss.item() == pytest.approx(math.log(2), abs=1e-5)  # d(i,p) = d(i,n): T_i = 1/2
    assert torch.isfinite(features.grad).all()


def test_half_precision_features_are_widened() -> None:
    torch.manual_seed(0)
    features = 3 + torch.randn(16, 64)
    with torch.autocast("cpu", torch.bfloat16):
        widened = pairwise_distances(features)
    exact = torch.cdist(features.double(), features.double()).float()
    off_diagonal = ~torch.eye(16, dtype=torch.bool)
    torch.testing.assert_close(
        widened[off_diagonal], exact[off_diagonal], rtol=1e-4, atol=0
    )  # bfloat16 products miss by 1e-2
    assert pairwise_distances(features.bfloat16()).dtype == torch.float32


def test_one_identity_is_refused_by_name() -> None:
    with pytest.raises(InputError, match="at least 2 identities"):
        softmax_triplet(torch.randn(4, 3), torch.zeros(4, dtype=torch.long))
