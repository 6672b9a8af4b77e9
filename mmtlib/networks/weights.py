"""Weights that others saved: read without executing anything, renamed to this package's layer names, checked.

Known layouts are those of the authors' repositories (yxgeee/MMT, SpCL, OpenUnReID), and ImageNet weights of torchvision
and IBN-Net. A `.pth` file is a pickle and may hold code; everything here reads it in PyTorch's weights-only mode,
which builds tensors, numbers and containers and refuses the rest.
"""

import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import torch
from torch import Tensor

from mmtlib import InputError
from mmtlib.files import some

# Old checkpoints hold their best mAP as a NumPy scalar, under the module path of NumPy 1 or of NumPy 2.
_SCALARS = [
    *((np._core.multiarray.scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
    *(np.dtype, np.dtypes.Float64DType, np.dtypes.Float32DType, np.dtypes.Int64DType),
]
_IMAGENET = {  # what it is, and where; torch hub's cache keeps the name
    "resnet50": (
        "torchvision's ResNet50_Weights.IMAGENET1K_V1",
        "https://download.pytorch.org/models/resnet50-0676ba61.pth",
    ),
    "ibn-resnet50": (
        "resnet50_ibn_a-d9d0bb7b.pth of XingangPan/IBN-Net",
        "https://github.com/XingangPan/IBN-Net/releases/download/v1.0/resnet50_ibn_a-d9d0bb7b.pth",
    ),
}


def is_safetensors(path: str | Path) -> bool:
    """Whether a file begins as safetensors files do: eight bytes of a length, then JSON."""
    try:
        with Path(path).open("rb") as file:
            head = file.read(9)
    except OSError as error:
        raise InputError(f"cannot read the network {path}: {error.strerror or error}") from error
    return head[8:] == b"{" and int.from_bytes(head[:8], "little") < 100_000_000


def described(path: str | Path) -> str:
    """What a file is that cannot be read as weights, judged by its bytes, with the remedy."""
    with Path(path).open("rb") as file:
        head = file.read(512)
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if head.startswith(b"version https://git-lfs"):
        return "it is a pointer of Git LFS, not the file itself: fetch that with `git lfs pull` in its repository"
    if start.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "it is a web page: download the file itself, not the page that shows it"
    if head.startswith((b"\x1f\x8b", b"BZh", b"7z")) or (zipfile.is_zipfile(path) and b"/data" not in head):
        return "it is an archive: unpack it first"
    if not head or head.startswith((b"PK\x03\x04", b"\x80\x02\x8a\nl\xfc\x9cF\xf9")) or is_safetensors(path):
        return f"it is {'cut off or damaged' if head else 'empty'}: copy or download it again"
    return "it is neither a file of torch.save nor one of safetensors"


def read_pickle(path: str | Path) -> Any:
    """Read a PyTorch checkpoint onto the CPU; what is no tensor, number, string or container is never executed."""
    try:
        with torch.serialization.safe_globals(_SCALARS):
            return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise InputError(f"cannot read the checkpoint {path}: {error.strerror or error}") from error
    except Exception as error:  # a broken or hostile pickle can fail in any way
        found, content = described(path), Path(path).read_bytes()
        asked = re.search(r"GLOBAL ([\w.]+)", str(error))
        name = asked[1].rpartition(".")[2].encode() if asked else b""
        # Text, and a pickle that is cut off within a name, ask for nonsense.
        whole = name and content[:1] == b"\x80" and b"\n" + name + b"\n" in content
        if asked and (content[:1] == b"P" or whole):
            found = f"it asks for {asked[1]}, which was not executed"
        raise InputError(
            f"{path} is not a plain PyTorch checkpoint ({found}): expected a file of torch.save with tensors and "
            "numbers only. If you trust its origin, save its state dict anew in the program it comes from"
        ) from error


def read_safetensors(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a safetensors file, and its metadata."""
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}
    except OSError as error:
        raise InputError(f"cannot read the network {path}: {error.strerror or error}") from error
    except safetensors.SafetensorError as error:
        raise InputError(f"cannot read the network {path} ({error}): {described(path)}") from error


def read_state_dict(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read the weights in a checkpoint or a safetensors file under this package's layer names.

    The wrappers of DataParallel, torch.compile and AveragedModel are taken off, wherever they stand in a name. Of a
    student and its mean network (OpenUnReID) the mean network is taken, which is the one they evaluate.

    Returns:
        The tensors by name, and facts: the numbers at the checkpoint's top level (`epoch`, `best_mAP`) and `layout`:
        "MMT", or "OpenUnReID" or "SpCL", whose ResNet-50 has a ReLU after the stem's batch norm.
    """
    content = read_safetensors(path)[0] if is_safetensors(path) else read_pickle(path)
    facts: dict[str, Any] = {}
    state = content
    if isinstance(content, dict):
        facts = {str(k): float(v) for k, v in content.items() if isinstance(v, (int, float, np.number))}
        state = next((content[k] for k in ("state_dict", "state_dict_1", "model") if k in content), content)
    if not isinstance(state, dict) or not state or not all(torch.is_tensor(v) for v in state.values()):
        raise InputError(
            f"{path} holds no state dict: expected tensors by layer name, or a dictionary with the key 'state_dict'"
        )
    named = [(re.sub(r"(?:^|(?<=\.))(?:module|_orig_mod)\.", "", str(n)), t) for n, t in state.items()]
    if any(name.startswith("mean_net.") for name, _ in named):
        named = [(n.removeprefix("mean_net."), t) for n, t in named if n.startswith("mean_net.")]
    named = [(n.removeprefix("net."), t) for n, t in named if n != "n_averaged"]  # AveragedModel's counter
    state, facts["layout"] = _rename(dict(named))
    if len(state) < len(named):
        raise InputError(f"{path} holds several tensors of one name, so several networks: save one alone")
    return state, facts


def _rename(state: dict[str, Tensor]) -> tuple[dict[str, Tensor], str]:
    """OpenUnReID's, SpCL's and torchvision's layer names as the authors of MMT number them, and whose they were."""
    ibn = any(name.endswith(".bn1.IN.weight") for name in state)
    first = 4 if ibn else 3  # in IBN-ResNet the stem's ReLU takes a number
    # In SpCL's ResNet-50 too, so that its first stage is number 4.
    shifted = not ibn and "base.4.0.conv3.weight" in state and "base.3.0.conv3.weight" not in state
    foreign = any(name.startswith("backbone.") for name in state)
    renamed = {}
    for name, tensor in state.items():
        name = re.sub(r"^(backbone|head)\.", "", name)
        name = re.sub(r"^conv1\.", "base.0.", re.sub(r"^bn1\.", "base.1.", name))
        name = re.sub(r"^layer(\d)\.", lambda match: f"base.{int(match[1]) - 1 + first}.", name)
        if shifted:
            name = re.sub(r"^base\.([4-7])\.", lambda match: f"base.{int(match[1]) - 1}.", name)
        renamed[name] = tensor
    return renamed, "OpenUnReID" if foreign else "SpCL" if shifted else "MMT"


def architecture(state: dict[str, Tensor]) -> str:
    """What network a state dict (authors' layer names) belongs to, in words or as a name of `build_network`."""
    ibn = "base.4.0.bn1.IN.weight" in state
    if "base.3.conv1.weight" in state:
        return "small"
    if "base.3.0.conv3.weight" in state or ibn:
        third = r"^base\.6\.(\d+)\." if ibn else r"^base\.5\.(\d+)\."
        blocks = 1 + max((int(match[1]) for name in state if (match := re.match(third, name))), default=-1)
        size = {6: "", 23: "a 101-layer "}.get(blocks, "another ")
        return size + ("ibn-resnet50" if ibn else "resnet50")
    return "a ResNet-18 or -34" if "base.3.0.conv2.weight" in state else "none that is known here"


def check_fit(state: dict[str, Tensor], expected: dict[str, Tensor], name: str, path: str | Path) -> None:
    """Refuse weights that are not exactly those of a network called `name`, whose state dict is `expected`.

    Missing step counters of batch norms (old checkpoints) are no fault.
    """
    other = [n for n in state if n in expected and state[n].shape != expected[n].shape]
    faults = {
        "missing": [n for n in expected if n not in state and not n.endswith("num_batches_tracked")],
        "unexpected": [n for n in state if n not in expected],
        "of another shape": [f"{n} {tuple(state[n].shape)} for {tuple(expected[n].shape)}" for n in other],
        "not finite": [n for n, t in state.items() if t.is_floating_point() and not bool(t.isfinite().all())],
    }
    parts = [f"{len(names)} {what}: {some(names, 4)}" for what, names in faults.items() if names]
    if parts:
        raise InputError(
            f"the weights in {path} do not fit {name!r} ({'; '.join(parts)}). They look like {architecture(state)}"
        )


def imagenet_file(name: str, source: str | Path) -> Path:
    """The file with a backbone's ImageNet weights: `source`, or where that is "cache", the one in torch hub's cache.

    Nothing is ever downloaded: the refusal says where it can be had, and how.
    """
    if name not in _IMAGENET:
        raise InputError(f"there are no ImageNet weights for the network {name!r}: leave `imagenet` empty")
    title, url = _IMAGENET[name]
    cached = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    path = cached if str(source) == "cache" else Path(source)
    if not path.is_file():
        raise InputError(
            f"no ImageNet weights at {path}. Nothing is downloaded while training: get {title} first, by\n"
            f"  python -c \"import torch; torch.hub.load_state_dict_from_url('{url}')\"\n"
            "which fills the cache that imagenet=cache reads, or give a file's path as imagenet=FILE; imagenet= "
            "(nothing) starts from random weights"
        )
    return path
