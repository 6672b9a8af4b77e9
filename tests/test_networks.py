"""Networks: the authors' outputs, batch-norm groups against a plain loop, foreign checkpoints, hostile files."""

from __future__ import annotations

import copy
import functools
import math
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from mmtlib import InputError
from mmtlib.networks import (
    backbones,
    build_network,
    load_authors_checkpoint,
    load_network,
    save_network,
    weights,
)
from mmtlib.networks.backbones import GroupBatchNorm
from mmtlib.networks.weights import architecture

REFERENCE = np.load(Path(__file__).parent / "reference" / "networks.npz")


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@functools.cache
def layout(name: str, classes: int = 11) -> dict[str, torch.Tensor]:
    """A state dict of a network whose j-th tensor is all j / 8: files of it are small, and no two tensors agree."""
    state = build_network(name, classes).state_dict()
    return {k: torch.full((), j / 8).to(v.dtype).expand(v.shape) for j, (k, v) in enumerate(state.items())}


def assert_holds(network: nn.Module, state: dict[str, torch.Tensor], skip: str = "no such name") -> None:
    for name, tensor in network.state_dict().items():
        assert skip in name or torch.equal(tensor, state[name]), name


def images(count: int = 8, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, 3, 64, 32, generator=torch.Generator().manual_seed(seed))


def fill(state: dict[str, torch.Tensor]) -> None:
    """The closed-form filling of the reference vectors."""
    for j, (name, tensor) in enumerate(state.items()):
        if not tensor.is_floating_point():
            continue
        v = torch.sin(0.7 * torch.arange(tensor.numel(), dtype=torch.float64) + j).reshape(tensor.shape)
        if tensor.ndim >= 2:
            v = v * math.sqrt(2 / tensor[0].numel())
        elif name.endswith("running_var"):
            v = 1 + 0.5 * v
        elif name.endswith("weight"):
            v = 1 + 0.1 * v
        else:
            v = 0.1 * v
        tensor.copy_(v)


# --- the authors' architectures ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "prefix"), [("resnet50", "resnet50"), ("ibn-resnet50", "resnet_ibn50a")])
@torch.no_grad()
def test_same_names_shapes_and_outputs_as_the_authors(name: str, prefix: str) -> None:
    network = build_network(name, 7).double().eval()
    state = network.state_dict()
    assert list(state) == list(REFERENCE[f"{prefix}_names"])
    assert [",".join(map(str, t.shape)) for t in state.values()] == list(REFERENCE[f"{prefix}_shapes"])
    fill(state)
    view = torch.sin(0.013 * torch.arange(2 * 3 * 128 * 64, dtype=torch.float64)).reshape(2, 3, 128, 64)
    embedding = network(view)
    features, logits = network.train()(view)
    for ours, key in ((embedding, "eval_embedding"), (features, "train_feature"), (logits, "train_logits")):
        theirs = REFERENCE[f"{prefix}_{key}"]
        assert np.abs(ours.numpy() - theirs).max() < 1e-9 * np.abs(theirs).max()


@torch.no_grad()
def test_stem_relu_changes_the_outputs_but_not_the_names() -> None:
    plain, with_relu = (
        build_network("resnet50", 3).eval(),
        build_network("resnet50", 3, stem_relu=True).eval(),
    )
    assert list(plain.state_dict()) == list(with_relu.state_dict())
    with_relu.load_state_dict(plain.state_dict())
    x = plain.base[1](plain.base[0](images(2)))
    lowest = plain.base[2](x).min()
    assert lowest < 0
    assert with_relu.base[2](x).min() == 0


# --- the common form ---------------------------------------------------------------------------------------------


def test_small_network_is_small_and_its_outputs_have_the_promised_form() -> None:
    network = build_network("small", 5, seed=1)
    assert network.num_features == 128
    assert 0.29e6 < sum(p.numel() for p in network.parameters()) < 0.36e6
    view = images()
    features, logits = network(view)
    maps = network.base(view)
    pooled = torch.stack([3.0 * maps[b, d].mean() for b in range(8) for d in range(128)]).reshape(8, 128)
    torch.testing.assert_close(features, pooled, rtol=1e-5, atol=1e-5)
    neck = (pooled - pooled.mean(0)) / (pooled.var(0, unbiased=False) + 1e-5).sqrt()  # its weight is 1, its bias 0
    torch.testing.assert_close(logits, neck @ network.classifier.weight.T, rtol=1e-3, atol=1e-5)
    embedding = network.eval()(view)
    assert embedding.shape == (8, 128)
    torch.testing.assert_close(embedding.norm(dim=1), torch.ones(8))
    assert not network.feat_bn.bias.requires_grad and network.classifier.bias is None


def test_gain_and_width_are_what_they_say() -> None:
    view = images(4)
    plain, trebled = (build_network("small", 2, gain=gain, width=8) for gain in (1.0, 3.0))
    assert plain.num_features == 64
    torch.testing.assert_close(trebled(view)[0], 3 * plain(view)[0])


@pytest.mark.parametrize(("stem_stride", "first"), [(2, (32, 16)), (4, (16, 8))])
def test_stem_strides_meet_at_the_same_last_maps(stem_stride: int, first: tuple[int, int]) -> None:
    network = build_network("small", 2, stem_stride=stem_stride)
    assert network.base[0](images(2)).shape == (2, 16, *first)
    assert network.base(images(2)).shape == (2, 128, 8, 4)


def test_weights_follow_from_the_seed_and_the_global_random_state_is_left_alone() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = build_network("small", 4, seed=3)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    again, other = build_network("small", 4, seed=3), build_network("small", 4, seed=4)
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name])
    for name, tensor in first.named_parameters():
        assert tensor.ndim < 2 or not torch.equal(tensor, other.state_dict()[name]), name


def test_features_and_logits_stay_float32_under_autocast() -> None:
    network = build_network("small", 6)
    with torch.autocast("cpu", torch.bfloat16):
        features, logits = network(images())
        embedding = network.eval()(images())
    assert features.dtype == logits.dtype == embedding.dtype == torch.float32
    # Pooled from bfloat16 maps, but not rounded to bfloat16 afterwards.
    assert not torch.equal(features, features.bfloat16().float())


def test_set_classifier_copies_any_number_of_rows() -> None:
    network = build_network("small", 4).double()
    weight = torch.randn(9, 128)
    network.set_classifier(weight)
    assert network.num_classes == 9 and network.classifier.weight.requires_grad
    assert network.classifier.weight.dtype == torch.float64
    assert torch.equal(network.classifier.weight, weight.double())
    weight = weight.double()
    network.set_classifier(weight)
    network.classifier.weight.data.zero_()
    assert weight.abs().min() > 0  # it was copied
    assert network(images().double())[1].shape == (8, 9)


@pytest.mark.parametrize("shape", [(4, 127), (0, 128), (128,)])
def test_set_classifier_refuses_weights_of_another_space(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"expected \(K, 128\)"):
        build_network("small", 4).set_classifier(torch.zeros(shape))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("resnet18", 4, {}), "resnet50"),
        (("small", 0, {}), "at least 1 class"),
        (("small", 4, {"bn_group": 1}), "at least 2"),
        (("small", 4, {"width": 0}), "width"),
        (("small", 4, {"stem_stride": 3}), "stride 2 or 4"),
        (("small", 4, {"gain": 0.0}), "gain"),
        (("small", 4, {"gain": math.nan}), "gain"),
    ],
)
def test_build_network_refuses(arguments: tuple[str, int, dict], message: str) -> None:
    name, classes, options = arguments
    with pytest.raises(InputError, match=message):
        build_network(name, classes, **options)


# --- groups of images in batch norms -------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(12, 5, 4, 3), (12, 7)])
def test_group_batch_norm_equals_a_loop_over_replicas(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    x = torch.randn(shape, dtype=torch.float64) * torch.arange(1, 13).reshape(12, *[1] * (len(shape) - 1))
    grad = torch.randn(shape, dtype=torch.float64)
    ours = GroupBatchNorm(shape[1], group=4).double()
    replicas = [(nn.BatchNorm2d if len(shape) == 4 else nn.BatchNorm1d)(shape[1]).double() for _ in range(3)]
    for layer in (ours, *replicas):
        nn.init.constant_(layer.weight, 1.3)
    a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
    output = ours(a)
    expected = torch.cat([replica(chunk) for replica, chunk in zip(replicas, b.split(4), strict=True)])
    torch.testing.assert_close(output, expected, rtol=1e-12, atol=1e-12)
    output.backward(grad)
    expected.backward(grad)
    torch.testing.assert_close(a.grad, b.grad, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(ours.weight.grad, sum(r.weight.grad for r in replicas), rtol=1e-10, atol=1e-12)
    # DataParallel keeps the running statistics of the first replica.
    for name in ("running_mean", "running_var", "num_batches_tracked"):
        torch.testing.assert_close(getattr(ours, name), getattr(replicas[0], name), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(ours.eval()(x), replicas[0].eval()(x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["small", "ibn-resnet50"])
@torch.no_grad()
def test_network_with_groups_equals_the_network_on_each_group(name: str) -> None:
    grouped, plain = build_network(name, 3, bn_group=4).double(), build_network(name, 3).double()
    view = images(8)[:, :, 16:48].double()
    plain_norms = (nn.BatchNorm1d, nn.BatchNorm2d)
    assert not any(type(module) in plain_norms for module in grouped.modules())
    assert list(grouped.state_dict()) == list(plain.state_dict())
    features, logits = grouped(view)
    for output, parts in zip((features, logits), zip(plain(view[:4]), plain(view[4:])), strict=True):
        torch.testing.assert_close(output, torch.cat(parts), rtol=1e-8, atol=1e-8)
    alone = build_network(name, 3).double()
    alone(view[:4])
    for key, tensor in alone.state_dict().items():
        torch.testing.assert_close(grouped.state_dict()[key], tensor, rtol=1e-9, atol=1e-9)


def test_a_batch_that_does_not_split_into_groups_is_refused() -> None:
    network = build_network("small", 3, bn_group=4)
    with pytest.raises(InputError, match="batch of 6 .* groups of 4"):
        network(images(6))
    assert network.eval()(images(6)).shape == (6, 128)  # evaluation has no groups


# --- our own files -------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_a_saved_network_comes_back_whole(tmp_path: Path) -> None:
    network = build_network("small", 3, seed=2, width=8, stem_stride=4, gain=2.0, bn_group=4)
    network(images())  # moves the running statistics
    network.set_classifier(torch.randn(5, 64))
    back = load_network(save_network(network, tmp_path / "deep" / "network.safetensors"))
    assert (back.name, back.num_classes) == ("small", 5)
    assert back.options == {"width": 8, "stem_stride": 4, "gain": 2.0, "bn_group": 4}
    for name, tensor in network.state_dict().items():
        assert torch.equal(back.state_dict()[name], tensor), name
    assert torch.equal(back.eval()(images()), network.eval()(images()))
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["network.safetensors"]


def test_load_network_refuses_what_it_did_not_write(tmp_path: Path) -> None:
    path = save_network(build_network("small", 3), tmp_path / "network.safetensors")
    whole = path.read_bytes()
    for content in (
        whole[: len(whole) // 2],
        b"",
        b"not a network",
        whole.replace(b"mmtlib_network", b"mmtlib_netwerk"),
    ):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"network\.safetensors"):
            load_network(path)
    with pytest.raises(InputError, match=r"cannot read the network .*absent\.safetensors"):
        load_network(tmp_path / "absent.safetensors")


# --- checkpoints of others -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("numpy_path", [b"numpy._core.multiarray", b"numpy.core.multiarray"])
def test_authors_checkpoint_with_another_number_of_classes(tmp_path: Path, numpy_path: bytes) -> None:
    path = tmp_path / "model_best.pth.tar"
    # The format of their time: one pickle, NumPy 1's module path, no step counters.
    state = {f"module.{k}": v for k, v in layout("ibn-resnet50").items() if "num_batches" not in k}
    content = {"state_dict": state, "epoch": 40, "best_mAP": np.float64(0.712)}
    torch.save(content, path, _use_new_zipfile_serialization=False)
    written = path.read_bytes()
    assert b"cnumpy._core.multiarray\n" in written
    path.write_bytes(written.replace(b"cnumpy._core.multiarray\n", b"c" + numpy_path + b"\n"))
    network = build_network("ibn-resnet50", 5)
    assert load_authors_checkpoint(path, network) == {"epoch": 40, "best_mAP": 0.712, "layout": "MMT"}
    assert network.num_classes == 11
    assert_holds(network, layout("ibn-resnet50"), skip="num_batches")


def openunreid(state: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    """The names that OpenUnReID gives to the tensors of a ResNet-50."""
    theirs = {}
    for name, tensor in state.items():
        part, number, *rest = name.split(".")
        if part == "base":
            module = {"0": "conv1", "1": "bn1"}.get(number) or f"layer{int(number) - 2}"
            name = ".".join(["backbone", module, *rest])
        theirs[prefix + name.replace("feat_bn.", "head.feat_bn.")] = tensor
    return theirs


@pytest.mark.parametrize("with_mean", [False, True])
def test_openunreid_checkpoint(tmp_path: Path, with_mean: bool) -> None:
    path, state = tmp_path / "model.pth", layout("resnet50")
    if with_mean:  # they evaluate the mean network
        student = openunreid({name: tensor + 1 for name, tensor in list(state.items())[:3]}, "module.net.")
        torch.save({"state_dict_1": student | openunreid(state, "module.mean_net.")}, path)
    else:
        torch.save({"state_dict": openunreid(state, "module.")}, path)
    network = build_network("resnet50", 2, stem_relu=True)
    assert load_authors_checkpoint(path, network)["layout"] == "OpenUnReID"
    assert_holds(network, state)
    with pytest.raises(InputError, match="stem_relu=True"):
        load_authors_checkpoint(path, build_network("resnet50", 4))


def test_a_checkpoint_that_does_not_fit_is_named_and_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "model_best.pth.tar"
    network = build_network("small", 3)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    small, ibn = layout("small"), layout("ibn-resnet50")
    nan = torch.full((128,), math.nan)
    for state, message in (
        (ibn, r"missing: base\.3\.conv1\.weight.* look like ibn-resnet50"),
        ({k: v for k, v in small.items() if k != "feat_bn.weight"}, r"\(1 missing: feat_bn\.weight\)"),
        (small | {"extra.weight": torch.zeros(1)}, r"1 unexpected: extra\.weight"),
        (
            small | {"base.0.weight": torch.zeros(8, 3, 3, 3)},
            r"another shape: base\.0\.weight \(8, 3, 3, 3\) for \(16, ",
        ),
        (
            small | {"classifier.weight": torch.zeros(11, 64)},
            r"another shape: classifier\.weight \(11, 64\) for \(3, 128",
        ),
        (small | {"feat_bn.running_var": nan}, r"1 not finite: feat_bn\.running_var"),
    ):
        torch.save({"state_dict": state}, path)
        with pytest.raises(InputError, match=message):
            load_authors_checkpoint(path, network)
    assert network.num_classes == 3
    assert_holds(network, before)


@pytest.mark.parametrize(
    ("name", "change", "answer"),
    [
        ("small", {}, "small"),
        ("resnet50", {}, "resnet50"),
        ("ibn-resnet50", {}, "ibn-resnet50"),
        ("resnet50", {"base.5.22.conv1.weight": torch.zeros(1)}, "a 101-layer resnet50"),
        ("ibn-resnet50", {"base.6.22.conv1.weight": torch.zeros(1)}, "a 101-layer ibn-resnet50"),
    ],
)
def test_architecture_is_recognised(name: str, change: dict, answer: str) -> None:
    assert architecture(layout(name) | change) == answer


@pytest.mark.parametrize("zipped", [True, False])
def test_a_hostile_checkpoint_is_refused_and_not_executed(tmp_path: Path, zipped: bool) -> None:
    trap = tmp_path / "executed"

    class Hostile:
        def __reduce__(self):
            return (Path.touch, (trap,))

    path = tmp_path / "model_best.pth.tar"
    torch.save({"state_dict": {}, "best_mAP": Hostile()}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(InputError, match=r"(?s)not a plain PyTorch checkpoint .*not executed"):
        load_authors_checkpoint(path, build_network("small", 2))
    assert not trap.exists()
    torch.load(path, weights_only=False)  # the trap works: a plain load springs it
    assert trap.exists()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 half a zip", b"plain text", pickle.dumps([1, 2], 2)])
def test_a_file_without_weights_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file.pth").write_bytes(content)
    with pytest.raises(InputError, match=r"file\.pth"):
        load_authors_checkpoint(tmp_path / "file.pth", build_network("small", 2))
    with pytest.raises(InputError, match=r"cannot read .*absent\.pth"):
        load_authors_checkpoint(tmp_path / "absent.pth", build_network("small", 2))


# --- ImageNet weights ----------------------------------------------------------------------------------------------


def imagenet_file(path: Path, name: str) -> Path:
    """A file in the form of torchvision's (or IBN-Net's) weights that holds `layout`."""
    first = 4 if name == "ibn-resnet50" else 3
    theirs = {"fc.weight": torch.zeros(1, 1), "fc.bias": torch.zeros(1)}
    for key, tensor in layout(name).items():
        part, number, *rest = key.split(".")
        if part == "base":
            module = {"0": "conv1", "1": "bn1"}.get(number) or f"layer{int(number) - first + 1}"
            theirs[".".join([module, *rest])] = tensor
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(theirs, path)
    return path


@pytest.mark.parametrize("name", ["resnet50", "ibn-resnet50"])
def test_imagenet_weights_fill_the_convolutions(tmp_path: Path, name: str) -> None:
    network = build_network(name, 4, imagenet=imagenet_file(tmp_path / "weights.pth", name))
    state = {k: v for k, v in layout(name).items() if k.startswith("base.")}
    head = {k: v for k, v in build_network(name, 4).state_dict().items() if not k.startswith("base.")}
    assert len(head) == 6
    assert_holds(network, state | head)


def test_imagenet_weights_from_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", None)  # whoever downloads fails
    with pytest.raises(InputError, match=r"Nothing is downloaded .*ResNet50_Weights\.IMAGENET1K_V1"):
        build_network("resnet50", 4, imagenet="cache")
    with pytest.raises(InputError, match=r"XingangPan/IBN-Net"):
        build_network("ibn-resnet50", 4, imagenet="cache")
    with pytest.raises(InputError, match="no ImageNet weights for the network 'small'"):
        build_network("small", 4, imagenet="cache")
    path = imagenet_file(tmp_path / "checkpoints" / "resnet50-0676ba61.pth", "resnet50")
    network = build_network("resnet50", 4, imagenet="cache")
    assert torch.equal(network.base[3][0].conv1.weight, layout("resnet50")["base.3.0.conv1.weight"])
    with pytest.raises(InputError, match=r"missing: .*IN.* look like resnet50"):
        build_network("ibn-resnet50", 4, imagenet=path)


@pytest.mark.parametrize(("channels", "planes", "stride"), [(16, 16, 1), (16, 32, 2)])
def test_a_basic_block_is_torchvisions(channels: int, planes: int, stride: int) -> None:
    from torchvision.models.resnet import BasicBlock

    blocks = [backbones.BasicBlock(channels, planes, stride, norm_layer=nn.BatchNorm2d)]
    blocks.append(BasicBlock(channels, planes, stride, copy.deepcopy(blocks[0].downsample), norm_layer=nn.BatchNorm2d))
    blocks[1].load_state_dict(blocks[0].state_dict())
    x = torch.randn(4, channels, 8, 6)
    outputs = []
    for block in blocks:
        given = x.clone().requires_grad_()
        block(given).square().sum().backward()
        outputs.append((block.eval()(x), given.grad, *(p.grad for p in block.parameters())))
    assert all(torch.equal(a, b) for a, b in zip(*outputs))


def test_the_address_of_the_weights_is_torchvisions() -> None:
    from torchvision.models import ResNet50_Weights

    assert weights._IMAGENET["resnet50"][1] == ResNet50_Weights.IMAGENET1K_V1.url
