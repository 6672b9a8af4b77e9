"""Similarity maps against a plain loop over gradients, and on networks of which it is known where they look."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mmtlib import InputError
from mmtlib.batches import normalise
from mmtlib.config import make_settings
from mmtlib.data.tasks import load_masks, load_task, open_dataset
from mmtlib.networks import build_network
from mmtlib.similarity_maps import attention, right_pairs, similarity_maps
from mmtlib.world import world
from mmtlib.world.masks import masks


def pictures(count: int, seed: int) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, 64, 32), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def trained(name: str):
    """A network whose neck has statistics and weights of its own, as after training."""
    network = build_network(name, 4, seed=1).eval()
    draw = torch.Generator().manual_seed(2)
    with torch.no_grad():
        pooled = network.pooled_and_neck(normalise(pictures(6, 9)))[0]
        network.feat_bn.running_mean.copy_(pooled.mean(0))
        network.feat_bn.running_var.copy_(pooled.var(0) + 1e-3)
        network.feat_bn.weight.copy_(0.5 + torch.rand(network.num_features, generator=draw))
    return network


def loop(network, query: torch.Tensor, answer: torch.Tensor) -> tuple[np.ndarray, float]:
    """The query's terms (h, w) by gradients, position by position, and the similarity that they add up to."""
    maps = network.base(normalise(query[None])).detach().requires_grad_()
    own = network.pool_and_neck(maps)[1][0]
    other = network(normalise(answer[None]))[0].detach()
    similarity = own @ other / own.norm().detach()
    (gradient,) = torch.autograd.grad(similarity, maps)
    _, channels, h, w = maps.shape
    terms = np.zeros((h, w))
    for y in range(h):
        for x in range(w):
            for d in range(channels):
                terms[y, x] += (gradient[0, d, y, x] * maps[0, d, y, x]).item()
    return terms + (similarity.item() - terms.sum()) / (h * w), similarity.item()


@pytest.mark.parametrize("name", ["small", "resnet50"])
def test_terms_are_those_of_a_loop_over_gradients_and_add_up_to_the_similarity(name):
    network, queries, answers = trained(name), pictures(3, 0), pictures(3, 1)
    answers[0] = queries[0]  # where the gradient of the whole cosine is zero
    found = similarity_maps(network, queries, answers)
    cosines = (network(normalise(queries)) * network(normalise(answers))).sum(1).detach()
    for side, (images, others) in enumerate(((queries, answers), (answers, queries))):
        for i in range(3 if name == "small" else 1):
            terms, similarity = loop(network, images[i], others[i])
            assert similarity == pytest.approx(float(cosines[i]), abs=1e-4)
            kept = torch.from_numpy(terms).clamp(min=0)[None, None]
            large = F.interpolate(kept, (64, 32), mode="bilinear", align_corners=False)[0, 0]
            assert 0.0 < float((large / large.sum() - 1 / 2048).abs().max())
            assert torch.allclose(found[side][i].double(), large / large.sum(), rtol=1e-3, atol=1e-7)


class Corner(torch.nn.Module):
    """Looks at the 16x16 pixels in one corner of a 64x32 image, and sees their colours."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        maps = torch.zeros(len(images), 8, 8, 4)
        maps[:, :3, 6:, 2:] = F.avg_pool2d(images, 8)[:, :, 6:, 2:]
        return maps


def test_a_network_that_looks_at_one_corner():
    network = build_network("small", 2, width=1).eval()  # 8 features
    network.base = Corner()
    images = pictures(4, 3)
    images[:, :, 48:, 16:] = torch.tensor([200, 180, 220], dtype=torch.uint8)[:, None, None]
    for maps in similarity_maps(network, images[:2], images[2:]):
        assert maps.argmax(0).shape == (64, 32)
        assert float(maps[:, 44:, 12:].sum(dim=(1, 2)).min()) > 0.999
        assert float(maps[:, 48:, 16:].sum(dim=(1, 2)).min()) > 0.7  # half a cell of 8 is lost by enlarging
    moved = images.clone()
    moved[:, :, :48] = 255 - moved[:, :, :48]  # what it does not see
    same = zip(similarity_maps(network, images[:2], images[2:]), similarity_maps(network, moved[:2], moved[2:]))
    assert all(torch.equal(a, b) for a, b in same)
    images[2:, :, 48:, 16:] = 20  # the opposite colours: nothing speaks for a similarity
    for maps in similarity_maps(network, images[:2], images[2:]):
        assert torch.equal(maps, torch.full_like(maps, 1 / 2048))


def test_maps_are_shares_and_neither_batches_nor_the_mode_matter():
    network, queries, answers = trained("small").train(), pictures(5, 4), pictures(5, 5)
    before = network.feat_bn.running_mean.clone()
    whole, parts = (similarity_maps(network, queries, answers, batch=b) for b in (256, 2))
    for maps, again in zip(whole, parts):
        assert maps.shape == (5, 64, 32) and maps.dtype == torch.float32
        assert float(maps.min()) >= 0 and torch.allclose(maps.sum((1, 2)), torch.ones(5))
        assert torch.allclose(maps, again, rtol=1e-3, atol=1e-7)
    assert network.training and torch.equal(before, network.feat_bn.running_mean)
    one = similarity_maps(network, queries[:1], answers)
    each = [similarity_maps(network, queries[:1], answers[i : i + 1]) for i in range(5)]
    for side in (0, 1):
        assert torch.allclose(one[side], torch.cat([pair[side] for pair in each]), rtol=1e-3, atol=1e-7)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_maps_of_a_gpu_are_those_of_the_processor():
    network, queries, answers = trained("small"), pictures(5, 4), pictures(5, 5)
    near = similarity_maps(network, queries, answers)
    far = similarity_maps(network.cuda(), queries.cuda(), answers.cuda())
    assert all(b.is_cuda and torch.allclose(a, b.cpu(), rtol=1e-2, atol=1e-6) for a, b in zip(near, far))


@pytest.mark.parametrize(("queries", "answers"), [(2, 3), (0, 0), (3, 0)])
def test_pairs_that_are_none_are_refused(queries, answers):
    with pytest.raises(InputError, match="expected pairs"):
        similarity_maps(trained("small"), pictures(queries, 0), pictures(answers, 0))


def test_right_pairs_show_one_person_from_two_cameras():
    settings = make_settings("smoke")
    pairs, few = right_pairs(settings), right_pairs(settings, most=5)
    part = load_task(settings)
    names = [
        {bytes(image.cpu().numpy()): i for i, image in enumerate(side.images)} for side in (part.query, part.gallery)
    ]
    rows, columns = ([names[k][bytes(image.cpu().numpy())] for image in side] for k, side in enumerate(sides(pairs)))
    assert rows == list(range(len(part.query.pids)))  # each query of this world has an answer
    assert (part.query.pids[rows] == part.gallery.pids[columns]).all()
    assert (part.query.camids[rows] != part.gallery.camids[columns]).all()
    assert len(few.queries) == len(few.answers) == len(few.masks[1]["person"]) == 5
    place = world("station", scale="tiny")
    path = open_dataset("station", settings).gallery.paths[columns[3]]
    assert np.array_equal(pairs.masks[1]["upper"][3], masks(place, path)["upper"])
    assert 0.1 < pairs.area["person"] < 0.4 and pairs.area["upper"] > pairs.area["shoes"] > 0


def sides(pairs):
    return pairs.queries, pairs.answers


def test_a_folder_has_no_masks():
    with pytest.raises(InputError, match="has no masks"):
        load_masks("photos", make_settings("smoke"), ["a.jpg"])


def test_attention_is_the_share_of_the_maps_within_a_mask():
    maps = torch.full((2, 2, 2), 0.25)
    maps[1] = torch.tensor([[1.0, 0], [0, 0]])
    masks = {"left": np.array([[[1, 0], [1, 0]]] * 2), "half": np.full((2, 2, 2), 0.5)}
    nowhere = {name: 0 * mask for name, mask in masks.items()}
    assert attention((maps, maps), (masks, masks)) == {"left": 0.75, "half": 0.5}
    assert attention((maps, maps), (masks, nowhere)) == {"left": 0.375, "half": 0.25}
