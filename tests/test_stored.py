"""Networks in files: what lies with them is used, and weights of others are loaded, or told what they are."""

from __future__ import annotations

import io
import random
import tempfile
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_networks import layout, openunreid
from torch import nn

from mmtlib import InputError
from mmtlib.__main__ import main
from mmtlib.config import make_settings
from mmtlib.evaluation import evaluate_file
from mmtlib.files import write_json
from mmtlib.networks import (
    build_network,
    load_authors_checkpoint,
    load_network,
    open_network,
    save_network,
    settings_of,
    trained_as,
)
from mmtlib.networks.weights import read_state_dict
from mmtlib.pages.subjects import subject_of_images
from mmtlib.runs.run import run

MANY = settings(max_examples=10 * settings.default.max_examples)
TINY = {f"base.{i}": torch.full((2,), float(i)) for i in range(3)} | {"feat_bn.weight": torch.ones(2)}


def written(content: object, form: str) -> bytes:
    """The bytes of a file of weights; safetensors hold tensors by name alone."""
    if form == "safetensors":
        return safetensors.torch.save(content)
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=form == "zip")
    return buffer.getvalue()


# --- weights of others ----------------------------------------------------------------------------------------------


def test_wrappers_in_any_mix_leave_the_names_of_the_layers(tmp_path: Path) -> None:
    rng, file = random.Random(0), tmp_path / "a"
    for _ in range(100):
        form, state = rng.choices(["zip", "legacy", "safetensors"], [1, 1, 8])[0], {}
        for name, tensor in TINY.items():
            first, rest = name.split(".", 1)
            before, between = ("".join(rng.choices(["module.", "_orig_mod."], k=rng.randrange(4))) for _ in "ab")
            state[f"{before}{first}.{between}{rest}"] = tensor
        state |= {"n_averaged": torch.tensor(7)} if rng.random() < 0.5 else {}
        key = rng.choice(["", "state_dict", "model"]) if form != "safetensors" else ""
        file.write_bytes(written({key: state, "epoch": 3} if key else state, form))
        found, facts = read_state_dict(file)
        assert found.keys() == TINY.keys() and all(torch.equal(found[name], TINY[name]) for name in TINY), state
        assert facts == ({"epoch": 3.0} if key else {}) | {"layout": "MMT"}


NOT_WEIGHTS = {
    "empty": st.just(b""),
    "Git LFS": st.integers(1, 10**12).map(
        lambda n: f"version https://git-lfs.github.com/spec/v1\noid sha256:{n:064x}\nsize {n}\n".encode()
    ),
    "web page": st.builds(
        lambda start, tag, rest: start + tag + rest,
        st.sampled_from([b"", b"\n\n ", b"\xef\xbb\xbf", b"\r\n\t"]),
        st.sampled_from([b"<!DOCTYPE html>", b"<html>", b"<HTML lang=en>", b"<?xml version='1.0'?>"]),
        st.binary(max_size=300),
    ),
    "neither a file of torch.save": st.text("abcdefghij \n", min_size=1, max_size=40).map(str.encode),
}
WHOLE = {form: written(TINY, form) for form in ("zip", "legacy", "safetensors")}


@MANY
@given(st.data())
def test_what_is_no_weights_is_called_what_it_is(data: st.DataObject) -> None:
    form = data.draw(st.sampled_from([*NOT_WEIGHTS, *WHOLE]))
    if form in WHOLE:
        content = WHOLE[form][: data.draw(st.integers(16, len(WHOLE[form]) - 1))]
        expected = "cut off or damaged"
    else:
        content, expected = data.draw(NOT_WEIGHTS[form]), form
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, data.draw(st.sampled_from(["a.pth", "a.safetensors", "model_best.pth.tar"])))
        file.write_bytes(content)
        for reader in (read_state_dict, open_network):
            with pytest.raises(InputError) as refused:
                reader(file)
            assert expected in str(refused.value) and str(file) in str(refused.value), content


@torch.no_grad()
def test_wrapped_networks_of_torch_itself_are_opened(tmp_path: Path) -> None:
    network = build_network("small", 3, seed=4, width=4, stem_stride=4, gain=2.0)
    averaged = torch.optim.swa_utils.AveragedModel(nn.DataParallel(network))
    compiled = torch.compile(network)
    network.eval()
    images = torch.randn(2, 3, 64, 32)
    for wrapped in (averaged, compiled, nn.DataParallel(compiled)):
        network.cpu()  # wrapping has moved it to a GPU
        assert not network.state_dict().keys() & wrapped.state_dict().keys()
        torch.save(wrapped.state_dict(), tmp_path / "a.pth")
        assert torch.equal(open_network(tmp_path / "a.pth", gain=2.0)(images), network(images))


def spcl(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The names in SpCL's ResNet-50, whose ReLU has a number, and which has no classifier."""
    names = {name: name.split(".") for name in state if name != "classifier.weight"}
    later = {name for name, part in names.items() if part[0] == "base" and int(part[1]) > 2}
    return {
        ".".join(["module", part[0], str(int(part[1]) + 1), *part[2:]] if name in later else ["module", *part]): (
            state[name]
        )
        for name, part in names.items()
    }


@pytest.mark.parametrize("kind", ["MMT", "OpenUnReID", "SpCL"])
@pytest.mark.parametrize("classifier", [True, False])
def test_resnets_of_three_repositories_are_told_apart(kind: str, classifier: bool, tmp_path: Path) -> None:
    state = layout("resnet50")
    if not classifier:
        state = {name: tensor for name, tensor in state.items() if name != "classifier.weight"}
    theirs = {"MMT": dict, "OpenUnReID": lambda s: openunreid(s, "module."), "SpCL": spcl}[kind](state)
    torch.save({"state_dict": theirs}, tmp_path / "a.pth")
    network = open_network(tmp_path / "a.pth")
    assert network.name == "resnet50" and not network.training
    assert bool(network.options["stem_relu"]) == (kind != "MMT")
    assert network.num_classes == (11 if classifier and kind != "SpCL" else 1)
    for name, tensor in network.state_dict().items():
        assert name == "classifier.weight" or torch.equal(tensor, state[name]), name
    if kind != "MMT":
        with pytest.raises(InputError, match=f"ResNet-50 of {kind}, which has a ReLU"):
            load_authors_checkpoint(tmp_path / "a.pth", build_network("resnet50", 1))


def test_two_networks_in_one_file_are_not_mixed(tmp_path: Path) -> None:
    torch.save(TINY | {"module.base.0": torch.zeros(2)}, tmp_path / "a.pth")
    with pytest.raises(InputError, match="several tensors of one name"):
        read_state_dict(tmp_path / "a.pth")
    torch.save(TINY, tmp_path / "a.pth")
    with pytest.raises(InputError, match=r"none that is known here: expected small, resnet50"):
        open_network(tmp_path / "a.pth")


# --- what lies with a network ---------------------------------------------------------------------------------------

OTHER = {"height": 48, "width": 24, "world_seed": 5, "precision": "float32", "stem_stride": 4, "gain": 2.0}


@pytest.fixture(scope="module", params=["direct", "direct_camera_norm"])
def trained(request, suite_home, tmp_path_factory):
    """A run whose images, world and network are not the profile's."""
    short = {"source_epochs": 1, "source_milestones": [], "source_warmup": 0}
    values = make_settings("smoke", method=request.param, **OTHER, **short)
    return run(values, tmp_path_factory.mktemp("runs"))


def printed(words: list, capsys) -> tuple[int, str, str]:
    status = main([str(word) for word in words])
    return status, *capsys.readouterr()


def line(result: dict) -> str:
    return " ".join(f"{name} {result[name]:.1f}" for name in ("mAP", "top1", "top5", "top10")) + "\n"


@pytest.mark.parametrize("place", ["in its run", "elsewhere", "of an older version"])
def test_evaluate_gives_the_score_of_the_run(place: str, trained, tmp_path, capsys) -> None:
    file = trained.path / "network_1.safetensors"
    if place != "in its run":
        copy = tmp_path / "copy.safetensors"
        copy.write_bytes(file.read_bytes())
        if place == "of an older version":  # its file does not hold the configuration, which lies beside it
            save_network(load_network(file), copy)
            write_json(tmp_path / "config.json", trained.result["config"])
        file = copy
    status, out, said = printed(["evaluate", file, "--data", "station"], capsys)
    assert (status, out) == (0, line(trained.result))
    assert "images of 48x24, precision float32" in said and "note:" not in said
    assert trained.result["scored"] == trained.result["queries"] > 0 and trained.result["unscored"] is None


def test_a_contradiction_on_the_command_line_is_said(trained, capsys) -> None:
    file = trained.path / "network_1.safetensors"
    given = ["--set", "height=64", "--set", "width=32", "--profile", "smoke"]
    status, out, said = printed(["evaluate", file, "--data", "station", *given], capsys)
    assert status == 0 and "trained with height=48, used with height=64" in said and "not the profile smoke" in said
    assert out != line(trained.result)
    other = trained.result["config"] | {"height": 64, "width": 32}
    values = make_settings("smoke", **{name: other[name] for name in (*OTHER, "method")})
    assert out == line(evaluate_file(file, "station", values))
    for change in ("backbone=resnet50", "stem_stride=2", "gain=1.0"):
        status, out, said = printed(["evaluate", file, "--data", "station", "--set", change], capsys)
        assert status == 2 and f"{change} cannot change that" in said


def test_a_file_that_says_nothing_needs_the_user_to(tmp_path, capsys) -> None:
    ours = save_network(build_network("small", 3), tmp_path / "a.safetensors")
    torch.save(build_network("small", 3).state_dict(), tmp_path / "b.pth")
    for file in (ours, tmp_path / "b.pth"):
        status, _, said = printed(["evaluate", file, "--data", "station"], capsys)
        assert status == 2 and "does not say how its network is used" in said and "--set height=" in said
        words = ["noise", "--images", "station", "--checkpoint", file, "--out", tmp_path]
        assert printed(words, capsys)[0] == 2
        assert settings_of(file, "smoke")[0] == make_settings("smoke")
        assert settings_of(file, None, {"height": 32, "width": 16})[0].height == 32
        with pytest.raises(InputError, match="does not say how"):
            settings_of(file, None, {"height": 32})
    assert trained_as(ours) == {} and trained_as(tmp_path / "b.pth") is None


def test_noise_looks_as_the_network_was_trained_to(trained, capsys) -> None:
    file = trained.path / "network_1.safetensors"
    values, notes = settings_of(file)
    assert not notes and {name: getattr(values, name) for name in OTHER} == OTHER
    subject = subject_of_images("station", file, values, clusters=5)
    assert subject.images.shape[2:] == (48, 24)
    assert trained_as(file)["normalisation"]["mean"] == pytest.approx([0.485, 0.456, 0.406])
    assert {"source", "target", "world_seed", "method"} <= trained_as(file).keys()


@pytest.mark.parametrize("metadata", ["{", "[1]", '"a"', "3", '{"height": "tall"}'])
def test_damaged_words_about_the_training_are_refused(metadata: str, tmp_path: Path) -> None:
    file = save_network(build_network("small", 3), tmp_path / "a.safetensors")
    with safetensors.safe_open(file, framework="pt") as opened:
        words = opened.metadata()
    words["mmtlib_network"] = f'{words["mmtlib_network"][:-1]}, "trained": {metadata}}}'
    safetensors.torch.save_file(safetensors.torch.load_file(file), file, words)
    with pytest.raises(InputError):
        settings_of(file)


# --- from a domain to itself ----------------------------------------------------------------------------------------


def test_a_domain_is_adapted_to_itself_by_intent_alone(tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    (tmp_path / "link").symlink_to("photos")
    for ends in (("city", "city"), ("photos", "./photos"), ("link", str(tmp_path / "photos"))):
        with pytest.raises(InputError, match="source and target are the same.*sanity check"):
            make_settings("smoke", source=ends[0], target=ends[1])
        words = ["adapt", "--source", ends[0], "--target", ends[1], "--profile", "smoke", "--out", "runs"]
        assert printed(words, capsys)[0] == 2
        assert make_settings("smoke", source=ends[0], target=ends[1], same_domain=True).target == ends[1]
    Path("m.yaml").write_text("{tasks: [[city, city]], methods: [direct], seeds: [1], profile: smoke}")
    assert printed(["batch", "m.yaml", "--out", "batch"], capsys)[0] == 2
    words = "adapt --source plaza --target plaza --profile smoke --method direct --same-domain --out runs"
    status, out, _ = printed([*words.split(), "--set", "source_epochs=1", "--set", "source_milestones=[]"], capsys)
    assert status == 0 and np.isfinite(float(out.split()[1]))
