"""Whole training steps against the authors' code, on the tiny network of the reference vectors."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from mmtlib import InputError
from mmtlib.adaptation import learning_rate
from mmtlib.config import make_settings
from mmtlib.ema import update_mean_network
from mmtlib.networks import build_network
from mmtlib.training import adam as fused_adam
from mmtlib.training import cluster_contrast_step, co_teaching_step, mmt_step, source_step, take_steps

FOLDER = Path(__file__).parent / "reference"
STEPS = np.load(FOLDER / "mmt_steps.npz")
SOURCE = np.load(FOLDER / "pretrain_steps.npz")


class TinyNetwork(nn.Module):
    """feature = W x; logits = C batch_norm(feature), the batch norm's bias frozen."""

    def __init__(self, inputs: int = 12, width: int = 8, classes: int = 6) -> None:
        super().__init__()
        self.embed = nn.Linear(inputs, width, bias=False)
        self.bn = nn.BatchNorm1d(width)
        self.bn.bias.requires_grad_(False)
        self.classifier = nn.Linear(width, classes, bias=False)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        features = self.embed(x)
        return features, self.classifier(self.bn(features))


def state(arrays: np.lib.npyio.NpzFile, prefix: str) -> dict[str, torch.Tensor]:
    return {
        name.removeprefix(prefix): torch.from_numpy(np.asarray(arrays[name]))
        for name in arrays.files
        if name.startswith(prefix)
    }


def network_from(tensors: dict[str, torch.Tensor]) -> TinyNetwork:
    width, inputs = tensors["embed.weight"].shape
    network = TinyNetwork(inputs, width, len(tensors["classifier.weight"])).double()
    network.load_state_dict(tensors)
    return network.train()


def adam(networks: list[nn.Module], lr: float, decay: float) -> torch.optim.Adam:
    return torch.optim.Adam([p for n in networks for p in n.parameters() if p.requires_grad], lr=lr, weight_decay=decay)


def assert_same_state(network: nn.Module, expected: dict[str, torch.Tensor]) -> None:
    for name, tensor in network.state_dict().items():
        error = (tensor.double() - expected[name].double()).norm() / expected[name].double().norm().clamp(min=1e-12)
        assert error < 1e-7, f"{name}: relative error {error:.1e}"


@pytest.mark.parametrize("case", sorted({name.split("_")[0] for name in STEPS.files}))
def test_mmt_steps_equal_the_authors(case: str) -> None:
    networks = [network_from(state(STEPS, f"{case}_init_network{i}.")) for i in (1, 2)]
    means = [copy.deepcopy(network) for network in networks]
    soft_ce, soft_tri, alpha, lr, decay, _ = STEPS[f"{case}_settings"].tolist()
    optimizer = adam(networks, lr, decay)
    batches = (torch.from_numpy(STEPS[f"{case}_{name}"]) for name in ("view1", "view2", "labels"))
    for step, (view1, view2, labels) in enumerate(zip(*batches)):
        mmt_step(
            networks,
            means,
            optimizer,
            (view1, view2),
            labels.long(),
            soft_ce_weight=soft_ce,
            soft_tri_weight=soft_tri,
            alpha=alpha,
            step=step,
        )
    for i in (0, 1):
        assert_same_state(networks[i], state(STEPS, f"{case}_final_network{i + 1}."))
        assert_same_state(means[i], state(STEPS, f"{case}_final_mean{i + 1}."))


def test_source_steps_equal_the_authors() -> None:
    network = network_from(state(SOURCE, "init."))
    optimizer = adam([network], 3.5e-4, 5e-4)
    arrays = (torch.from_numpy(SOURCE[name]) for name in ("source", "labels", "target"))
    for source, labels, target in zip(*arrays):
        source_step(network, optimizer, source, labels.long(), target)
    assert_same_state(network, state(SOURCE, "final."))


def test_learning_rate_schedule_equals_the_authors() -> None:
    settings = make_settings("paper")
    ours = [learning_rate(settings, epoch) for epoch in range(settings.source_epochs)]
    np.testing.assert_allclose(ours, SOURCE["learning_rate_by_epoch"], rtol=1e-12)


@pytest.mark.parametrize("alpha", [0.0, 0.5, 0.999])
def test_mean_network_follows_the_formula(alpha: float) -> None:
    torch.manual_seed(0)
    network, mean = TinyNetwork(), TinyNetwork()
    expected = mean.embed.weight.detach().clone()
    statistics = mean.bn.running_mean.clone()
    network.bn.running_mean += 1
    for step in range(5):
        network.embed.weight.data.add_(torch.randn_like(network.embed.weight))
        momentum = min(1 - 1 / (step + 1), alpha)
        expected = momentum * expected + (1 - momentum) * network.embed.weight.detach()
        update_mean_network(mean, network, alpha, step)
        torch.testing.assert_close(mean.embed.weight.detach(), expected)
    assert torch.equal(mean.bn.running_mean, statistics), "the mean network's batch norm keeps its own statistics"


def tiny_pair() -> tuple[list[nn.Module], list[nn.Module], list[torch.Tensor], torch.Tensor]:
    torch.manual_seed(1)
    networks = [TinyNetwork().train() for _ in range(2)]
    views = [torch.randn(16, 12) for _ in range(2)]
    return networks, [copy.deepcopy(n) for n in networks], views, torch.arange(16) % 6


@pytest.mark.parametrize("teacher", ["other mean", "own mean", "other network"])
def test_each_teacher_teaches_what_its_name_says(teacher: str) -> None:
    networks, means, views, pids = tiny_pair()
    with torch.no_grad():  # means that differ from their networks
        for mean in means:
            mean.embed.weight.mul_(1.5)
    sources = copy.deepcopy({"other mean": means[::-1], "own mean": means, "other network": networks[::-1]}[teacher])
    seen = views if teacher == "own mean" else views[::-1]
    students = copy.deepcopy(networks)
    expected = 0.0
    for student, view, source, source_view in zip(students, views, sources, seen):
        expected -= (source(source_view)[1].softmax(1) * student(view)[1].log_softmax(1)).sum(1).mean().item()
    weights = {"soft_ce_weight": 0.5, "soft_tri_weight": 0.8}
    parts = mmt_step(
        networks, means, adam(networks, 1e-3, 0), views, pids, **weights, alpha=0.9, step=0, teacher=teacher
    )
    assert parts["soft_ce"].item() == pytest.approx(expected, rel=1e-5)


def test_weights_switch_parts_off_and_scale_the_rest() -> None:
    networks, means, views, pids = tiny_pair()
    options = {"alpha": 0.9, "step": 0}
    parts = mmt_step(
        networks, means, adam(networks, 0.0, 0), views, pids, soft_ce_weight=1, soft_tri_weight=0, **options
    )
    assert parts["hard_ce"] == 0 and parts["soft_triplet"] == 0
    assert parts["loss"].item() == pytest.approx(float(parts["soft_ce"] + parts["hard_triplet"]), rel=1e-6)


def test_a_step_that_cannot_be_taken_changes_nothing() -> None:
    networks, means, views, pids = tiny_pair()
    options = {"soft_ce_weight": 0.5, "soft_tri_weight": 0.8, "alpha": 0.9, "step": 1}
    before = copy.deepcopy(networks[1].embed.weight)
    for case, error, message in (
        (([], adam(networks, 1, 0), views, pids), InputError, "2 networks have 0 teachers"),
        ((means, adam(networks, 1, 0), views, pids * 0), InputError, "at least 2 identities"),
    ):
        with pytest.raises(error, match=message):
            mmt_step(networks, *case, **options)
    assert torch.equal(networks[1].embed.weight, before)


def test_co_teaching_learns_from_what_the_other_network_finds_easy() -> None:
    networks, _, views, pids = tiny_pair()
    students = copy.deepcopy(networks)
    losses = [
        nn.functional.cross_entropy(n(v)[1], pids, label_smoothing=0.1, reduction="none")
        for n, v in zip(students, views)
    ]
    easy = [loss.argsort()[:12] for loss in losses]
    expected = (losses[0][easy[1]].mean() + losses[1][easy[0]].mean()).item()
    parts = co_teaching_step(networks, adam(networks, 0.0, 0), views, pids, keep=0.75)
    assert parts["hard_ce"].item() == pytest.approx(expected, rel=1e-5)
    own_choice = (losses[0][easy[0]].mean() + losses[1][easy[1]].mean()).item()
    assert abs(parts["hard_ce"].item() - own_choice) > 1e-2


def test_cluster_contrast_is_info_nce_against_a_memory_that_follows() -> None:
    network = build_network("small", 5, width=8).train()
    generator = torch.Generator().manual_seed(3)
    view = torch.randn(8, 3, 32, 16, generator=generator)
    pids = torch.tensor([0, 0, 3, 3, 1, 1, 0, 4])
    network.set_classifier(nn.functional.normalize(torch.randn(5, 64, generator=generator)))
    memory = network.classifier.weight.detach().clone().double()
    with torch.no_grad():
        pooled = copy.deepcopy(network)(view)[0].double()
    neck = (pooled - pooled.mean(0)) / (pooled.var(0, correction=0) + 1e-5).sqrt()  # the neck's scale is still 1
    queries = [row / row.norm() for row in neck]
    expected = 0.0
    for query, pid in zip(queries, pids.tolist()):
        chances = [float(torch.exp(query @ centroid / 0.05)) for centroid in memory]
        expected -= np.log(chances[pid] / sum(chances)) / len(view)
    for query, pid in zip(queries, pids.tolist()):
        moved = 0.1 * memory[pid] + 0.9 * query
        memory[pid] = moved / moved.norm()
    before = network.base[0].weight.detach().clone()
    parts = cluster_contrast_step(network, adam([network], 1e-3, 0), view, pids)
    assert parts["info_nce"].item() == pytest.approx(expected, rel=1e-4)
    torch.testing.assert_close(network.classifier.weight.detach().double(), memory, rtol=1e-4, atol=1e-5)
    assert not torch.equal(network.base[0].weight, before)


def test_convolutions_repeat_within_steps_and_the_setting_comes_back() -> None:
    """cuDNN's own choices give other bits in each run; seen by its setting, which is there without a GPU too."""
    cudnn, seen = torch.backends.cudnn, []

    def precision() -> str | bool:
        return cudnn.conv.fp32_precision if hasattr(cudnn, "conv") else cudnn.allow_tf32

    def step(_: int, values: torch.Tensor) -> dict[str, torch.Tensor]:
        seen.append((cudnn.deterministic, precision()))
        return {"loss": values.mean()}

    before = cudnn.deterministic, precision()
    take_steps(step, [(torch.ones(2),)])
    assert seen[0][0] is True and seen[0][1] in ("ieee", False) and before[1] in ("tf32", True)
    assert (cudnn.deterministic, precision()) == before


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
@pytest.mark.parametrize("graph", [False, True])
@pytest.mark.parametrize("low", [True, False], ids=["bfloat16", "float32"])
@pytest.mark.parametrize("name", ["small", "resnet50", "ibn-resnet50"])
def test_on_a_gpu_steps_repeat_to_the_last_bit(name: str, low: bool, graph: bool) -> None:
    views = torch.randn(16, 2, 32, 3, 128, 64, generator=torch.Generator().manual_seed(0)).cuda()
    pids = torch.arange(8, device="cuda").repeat_interleave(4)
    options = {} if name == "small" else {"bn_group": 16}

    def trained() -> list[torch.Tensor]:
        networks = [build_network(name, 8, seed=seed, **options).cuda().train() for seed in (1, 2)]
        means = [copy.deepcopy(network) for network in networks]
        optimizer = fused_adam(networks, 3.5e-4, 5e-4)

        def step(number: int | torch.Tensor, *tensors: torch.Tensor) -> dict[str, torch.Tensor]:
            how = {"soft_ce_weight": 0.5, "soft_tri_weight": 0.8, "alpha": 0.9, "step": number}
            how["autocast"] = torch.autocast("cuda", torch.bfloat16, enabled=low)
            return mmt_step(networks, means, optimizer, tensors[:2], tensors[2], **how)

        take_steps(step, ((*pair, pids) for pair in views), graph=graph)
        return [value for network in networks + means for value in network.state_dict().values()]

    assert all(torch.equal(a, b) for a, b in zip(trained(), trained(), strict=True))
