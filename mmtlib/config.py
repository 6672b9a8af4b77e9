"""Settings of a run: one frozen dataclass, the profiles as differences from it, the table of methods, the hash.

Everything that changes a result stands here; everything that does not (folders, worker counts) stands elsewhere.
"""

import dataclasses
import functools
import hashlib
import json
import os
import typing
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, Self

from mmtlib import InputError

# Raised when the code changes what a finished run would contain: old caches are then not reused.
RUN_FORMAT = 2


@dataclass(frozen=True)
class Method:
    """One row of the table of methods: switches over the one adaptation loop (`adaptation.adapt`).

    Attributes:
        labels: Where the hard labels come from: clusters of target features, the target's own identities
            (the upper bound), or nowhere (no adaptation).
        networks: 1 or 2 networks.
        means: Whether each network has a mean network (which is then clustered on and evaluated).
        teacher: Whose soft outputs supervise a network.
        soft_ce, soft_triplet: Weight of the soft part: "setting" takes it from the settings, a number fixes it
            (0: no soft part; 1: no hard part).
        clustering: k-means with a given K, or DBSCAN on the k-reciprocal Jaccard distance.
        step: What a training step is: that of MMT with the parts that are left, co-teaching (each network learns from
            the images that have a small loss in the other one), or cluster contrast (one network against a memory of
            cluster centroids).
        cameras: What is taken out per camera; such a row knows which camera took each image. "embeddings": their mean
            and deviation, before clustering and search (Song et al. 2025, arXiv 2502.10195). "batch norms": every batch
            norm takes the statistics of the image's camera (Zhuang et al. 2020), in search.
        falling: The learning rate falls over the epochs by half a cosine; else it stays, as published.
        title: What figures and tables call it.
    """

    title: str
    labels: Literal["clusters", "identities", "none"] = "clusters"
    networks: int = 2
    means: bool = True
    teacher: Literal["none", "own mean", "other mean", "other network"] = "other mean"
    soft_ce: float | Literal["setting"] = "setting"
    soft_triplet: float | Literal["setting"] = "setting"
    clustering: Literal["kmeans", "dbscan"] = "kmeans"
    step: Literal["mmt", "co-teaching", "cluster contrast"] = "mmt"
    cameras: Literal["", "embeddings", "batch norms"] = ""
    falling: bool = False

    @property
    def knows(self) -> str:
        """What a method is told about the target, beside its images."""
        return "identities" if self.labels == "identities" else "cameras" if self.cameras else "nothing"


_HARD: dict[str, Any] = {"teacher": "none", "soft_ce": 0.0, "soft_triplet": 0.0}
_PLAIN: dict[str, Any] = {"means": False, **_HARD}
_DIRECT: dict[str, Any] = {"labels": "none", "networks": 1, **_PLAIN}
_CONTRAST: dict[str, Any] = {"networks": 1, "step": "cluster contrast", **_PLAIN}

METHODS: dict[str, Method] = {
    "direct": Method("direct transfer", **_DIRECT),
    "direct_camera_norm": Method("direct transfer, camera norm", cameras="embeddings", **_DIRECT),
    "direct_camera_bn": Method("direct transfer, batch norms per camera", cameras="batch norms", **_DIRECT),
    "supervised": Method("supervised on target", labels="identities", networks=1, **_PLAIN),
    "hard_single": Method("hard labels, one network", networks=1, **_PLAIN),
    "hard": Method("hard labels", **_PLAIN),
    "hard_falling_rate": Method("hard labels, falling rate", falling=True, **_PLAIN),
    "hard_dbscan": Method("hard labels (DBSCAN)", clustering="dbscan", **_PLAIN),
    "hard_camera_norm": Method("hard labels, camera norm", cameras="embeddings", **_PLAIN),
    "cluster_contrast": Method("cluster contrast (DBSCAN)", clustering="dbscan", **_CONTRAST),
    "cluster_contrast_kmeans": Method("cluster contrast", **_CONTRAST),
    "mean_teacher": Method("mean teacher", networks=1, teacher="own mean", soft_triplet=0.0),
    "mutual_learning": Method("mutual learning", means=False, teacher="other network", soft_triplet=0.0),
    "co_teaching": Method("co-teaching", step="co-teaching", **_PLAIN),
    "mmt": Method("MMT"),
    "mmt_dbscan": Method("MMT (DBSCAN)", clustering="dbscan"),
    "mmt_camera_norm": Method("MMT, camera norm", cameras="embeddings"),
    "mmt_without_soft_ce": Method("MMT without soft CE", soft_ce=0.0),
    "mmt_without_soft_triplet": Method("MMT without soft triplet", soft_triplet=0.0),
    "mmt_without_soft_losses": Method("mean networks, hard losses only", **_HARD),
    "mmt_dbscan_without_soft_losses": Method("mean networks, hard losses only (DBSCAN)", clustering="dbscan", **_HARD),
    "mmt_without_hard_ce": Method("MMT without hard CE", soft_ce=1.0),
    "mmt_without_hard_triplet": Method("MMT without hard triplet", soft_triplet=1.0),
    "mmt_without_means": Method("MMT without mean networks", means=False, teacher="other network"),
    "mmt_without_second_network": Method("MMT without second network", networks=1, teacher="own mean"),
}

EMBEDDED_DOMAINS = ("plaza", "station", "city")


@dataclass(frozen=True)
class Settings:
    """Everything that decides the result of a run. The defaults are those of the `quick` profile.

    Units: image sizes in pixels, learning rates as Adam takes them, shares in [0, 1].
    """

    # the task
    source: str = "plaza"  # an embedded domain or a folder
    target: str = "station"
    same_domain: bool = False  # source and target may be one: a sanity check, where there is no gap to close
    target_labels: str = ""  # a table path,cluster whose labels stand for those of clustering; "": none
    method: str = "mmt"
    seed: int = 1
    # the embedded world (ignored for folders)
    world_seed: int = 0
    world_scale: str = "small"
    gap: float = -1.0  # of station and city from the neutral world; -1: each domain's own gap
    # images
    height: int = 64
    width: int = 32
    flip: bool = True
    padding: int = 3  # pixels on each side before a random crop
    erasing: float = 0.0  # probability of random erasing (in adaptation)
    # networks
    backbone: str = "small"
    stem_stride: int = 4  # of the small network's first convolution: 2 or 4
    gain: float = 3.0  # constant on the pooled feature (small network only)
    imagenet: str = ""  # weights file that initialises a ResNet-50, or "cache"; "" starts from noise
    bn_group: int = 0  # images that a batch norm sees together; 0: the whole batch
    precision: str = "auto"  # auto, float32 or bfloat16 (forward and backward pass; distances are float32)
    compile: bool = False  # torch.compile the convolutions: for long runs on a GPU; it rounds differently
    # a batch
    num_ids: int = 16
    num_instances: int = 4
    # source pre-training
    source_epochs: int = 8
    source_iterations: int = 60
    source_lr: float = 3e-3
    source_warmup: int = 2  # epochs of linear warm-up from 1 % of the learning rate
    source_decay: str = "cosine"  # cosine: half a cosine to 0; steps: a tenth at each milestone, as published
    source_milestones: tuple[int, ...] = (5, 7)  # epochs at which the learning rate falls to a tenth
    weight_decay: float = 5e-4
    label_smoothing: float = 0.1
    # adaptation
    epochs: int = 9
    iterations: int = 60
    lr: float = 4e-3
    alpha: float = 0.99
    soft_ce_weight: float = 0.5
    soft_triplet_weight: float = 0.8
    # pseudo labels
    clusters: int = 70
    cluster_features: str = "concat"  # concat: networks from different starts; average: from one start
    min_samples: int = 4  # DBSCAN
    k1: int = 20
    k2: int = 6
    rho: float = 0.0  # share of the distances whose mean is DBSCAN's eps; 0: as many an image as the authors'
    forget_rate: float = 0.2  # co-teaching: share of each batch that is dropped in the end
    # controlled label noise
    noise_rate: float = 0.0  # share of pseudo labels replaced by a wrong one, anew each epoch
    noise_kind: str = "symmetric"  # symmetric: any other cluster; camera: a cluster of the same camera

    def __post_init__(self) -> None:
        """Refuse what could not run, before anything starts."""
        for name, kind in setting_types().items():
            object.__setattr__(self, name, _typed(name, getattr(self, name), kind))
        for name in ("source", "target", "imagenet", "target_labels"):
            object.__setattr__(self, name, os.path.expanduser(getattr(self, name)))
        if not self.same_domain and (self.source == self.target or _one_folder(self.source, self.target)):
            raise InputError(
                f"source and target are the same ({self.target}), so there is no gap to close: name two domains, or "
                "set same_domain=true (mmt adapt --same-domain) where this is meant as a sanity check"
            )
        one_of("method", self.method, METHODS)
        labelled = self.target_labels and METHODS[self.method].labels != "clusters"
        self._need(not labelled, "target_labels", "none for a method without pseudo labels")
        one_of("precision", self.precision, ("auto", "float32", "bfloat16"))
        one_of("cluster_features", self.cluster_features, ("concat", "average"))
        one_of("noise_kind", self.noise_kind, ("symmetric", "camera"))
        one_of("backbone", self.backbone, ("small", "resnet50", "ibn-resnet50"))
        one_of("source_decay", self.source_decay, ("steps", "cosine"))
        self._need(self.stem_stride in (2, 4), "stem_stride", "2 or 4")
        positive = "height width gain source_epochs source_iterations source_lr epochs iterations lr min_samples k1 k2"
        for name in positive.split():
            self._need(getattr(self, name) > 0, name, "more than 0")
        for name in ("seed", "world_seed", "padding", "bn_group", "source_warmup", "weight_decay"):
            self._need(getattr(self, name) >= 0, name, "0 or more")
        shares = "erasing label_smoothing soft_ce_weight soft_triplet_weight forget_rate rho noise_rate"
        for name in shares.split():
            self._need(0 <= getattr(self, name) <= 1, name, "a share from 0 to 1")
        self._need(self.gap == -1 or self.gap >= 0, "gap", "0 or more, or -1 for each domain's own")
        self._need(0 <= self.alpha < 1, "alpha", "from 0 to below 1")
        for name in ("num_ids", "num_instances", "clusters"):  # a triplet needs a positive and a negative
            self._need(getattr(self, name) >= 2, name, "2 or more")
        batch = self.num_ids * self.num_instances
        self._need(self.bn_group == 0 or batch % self.bn_group == 0, "bn_group", f"a divisor of {batch}")

    def _need(self, condition: bool, name: str, expected: str) -> None:
        if not condition:
            raise InputError(f"setting {name}: expected {expected}, found {getattr(self, name)!r}")

    def replace(self, **changes: Any) -> Self:
        """A copy with some settings changed; unknown names are refused."""
        for name in changes:
            one_of("setting", name, setting_types())
        return dataclasses.replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """All settings as JSON values."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(self).items()}

    @classmethod
    def of(cls, config: dict[str, Any]) -> Self:
        """The settings of a run, from its stored configuration, which holds more."""
        return cls(**{name: value for name, value in config.items() if name in cls.__dataclass_fields__})


@functools.cache
def setting_types() -> dict[str, Any]:
    """The type of each setting."""
    return typing.get_type_hints(Settings)


# What pre-training depends on; the rest of the settings leaves a pre-trained network as it is.
SOURCE_SETTINGS = (
    "source target same_domain world_seed world_scale gap height width flip padding backbone stem_stride gain imagenet "
    "bn_group precision compile num_ids num_instances source_epochs source_iterations source_lr source_warmup "
    "source_decay source_milestones weight_decay label_smoothing"
).split()

TASKS = {
    "quick": (("plaza", "station"),),
    "standard": (("plaza", "station"), ("station", "plaza"), ("plaza", "city"), ("station", "city")),
}
TASKS |= {"smoke": TASKS["quick"], "paper": TASKS["standard"]}
SEEDS = {"smoke": (1, 2), "quick": (1, 2, 3), "standard": (1, 2, 3, 4, 5), "paper": (1, 2, 3)}

PROFILES: dict[str, dict[str, Any]] = {
    "smoke": {
        "world_scale": "tiny",
        **{"source_epochs": 2, "source_iterations": 20},
        **{"epochs": 2, "iterations": 12, "clusters": 20, "num_ids": 8},
    },
    "quick": {},
    "standard": {},
    "paper": {
        "world_scale": "market",
        "height": 256,
        "width": 128,
        "padding": 10,
        "erasing": 0.5,
        "backbone": "resnet50",
        "imagenet": "cache",
        "bn_group": 16,
        "source_epochs": 80,
        "source_iterations": 100,
        "source_lr": 3.5e-4,
        "source_warmup": 10,
        "source_decay": "steps",
        "source_milestones": (40, 70),
        "epochs": 40,
        "iterations": 400,
        "lr": 3.5e-4,
        "alpha": 0.999,
        "clusters": 500,
        "cluster_features": "average",
        "rho": 1.6e-3,
    },
}

# The rows that every table shows: bounds, baseline, the control that has the means but not the soft losses, MMT.
MAIN_METHODS = ("direct", "supervised", "hard", "mmt_without_soft_losses", "mmt")

# Learning rates of the small profiles, chosen per method on development worlds and seeds by
# benchmarks/choose_settings.py (results/search/rates_*.json, rows_*.json). Rows that were not searched take their
# nearest relative's; MMT's is the default, also of MMT without its parts, so that an ablation changes one thing.
METHOD_LR: dict[str, float] = {"supervised": 8e-3, "hard": 2e-3, "mmt_without_soft_losses": 2e-3}
METHOD_LR |= dict.fromkeys(("hard_single", "mutual_learning", "co_teaching"), METHOD_LR["hard"])
METHOD_LR |= {"hard_falling_rate": 8e-3, "hard_dbscan": 1e-3, "hard_camera_norm": 1e-3}
METHOD_LR |= {"cluster_contrast": 2.5e-4, "cluster_contrast_kmeans": 5e-4}


# K of the small profiles, a guess from the number of images alone: one cluster per 26, as the paper's K = 500 has on
# the 12,936 images of Market-1501. It is not the number of people, which nobody would know.
TARGET_CLUSTERS: dict[str, int] = {"plaza": 60, "station": 70, "city": 85}


def guessed_clusters(images: int) -> int:
    """K for a folder of one's own: one cluster per 26 images."""
    return max(2, images // 26)


def own_clusters(profile: str, target: str) -> int:
    """The K of a profile for a target; of an unknown profile, that of `quick`."""
    return PROFILES.get(profile, {}).get("clusters", TARGET_CLUSTERS.get(target, Settings.clusters))


def make_settings(profile: str = "quick", **changes: Any) -> Settings:
    """The settings of a profile, with changes on top.

    Without `lr`, the small profiles take the method's own learning rate; without `clusters`, the K of an embedded
    target.
    """
    one_of("profile", profile, PROFILES)
    values = PROFILES[profile] | changes
    if "lr" not in values and values.get("method") in list(METHOD_LR):
        values["lr"] = METHOD_LR[values["method"]]
    values.setdefault("clusters", own_clusters(profile, values.get("target", Settings.target)))
    return Settings().replace(**values)


def parse_override(text: str) -> tuple[str, Any]:
    """Turn `key=value` of the command line into a name and a typed value."""
    name, equals, value = text.partition("=")
    if not equals:
        raise InputError(f"--set takes key=value, found {text!r}")
    types = setting_types()
    one_of("setting", name, types)
    if types[name] is not str:
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):  # no JSON, or beyond any sense
            value = {"True": True, "False": False}.get(value, value)
    return name, _typed(name, value, types[name])


def config_hash(config: dict[str, Any]) -> str:
    """Twelve hexadecimal digits that name a configuration (a JSON value)."""
    later = {"same_domain": False, "target_labels": ""}  # as before there were these settings
    config = {k: v for k, v in config.items() if k not in later or v != later[k]}
    text = json.dumps([RUN_FORMAT, config], sort_keys=True, allow_nan=False).encode()
    return hashlib.sha256(text).hexdigest()[:12]


def has_clusters(method: str) -> bool:
    """Whether a method has K, the number of clusters."""
    return METHODS[method].labels == "clusters" and METHODS[method].clustering == "kmeans"


@functools.cache
def seen_settings(method: str) -> frozenset[str]:
    """The settings that change what a run of a method contains."""
    if METHODS[method].labels == "none":
        return frozenset({"method", "seed", *SOURCE_SETTINGS})
    unseen = set() if has_clusters(method) else {"clusters"}
    if METHODS[method].labels == "identities":
        unseen |= {"cluster_features", "noise_rate", "noise_kind", "min_samples", "k1", "k2", "rho"}
    return frozenset(Settings().to_dict().keys() - unseen)


def variant(config: dict[str, Any], base: dict[str, Any], names: typing.Iterable[str] | None = None) -> str:
    """What differs from `base` in a run and matters to its method, as "lr 0.001, epochs 9".

    Left out: task, method, seed and K, which stand beside it. `names`: only these settings count; None: all.
    """
    left_out = {"source", "target", "method", "seed", "clusters", *([] if config.get("noise_rate") else ["noise_kind"])}
    counted = (seen_settings(config["method"]) - left_out) & set(base if names is None else names)
    changed = [k for k in base if k in config and k in counted and config[k] != base[k]]
    words = {"target_labels": "corrected labels"}
    return ", ".join(f"{words.get(name, name)} {config[name]}" for name in changed)


def profile_variant(profile: str, settings: Settings) -> str:
    """What differs from a profile, as by `variant`."""
    return variant(settings.to_dict(), make_settings(profile, method=settings.method).to_dict())


def _typed(name: str, value: Any, kind: Any) -> Any:
    """`value` as the setting's type, or a refusal; an int may stand for a float, a list for a tuple."""
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if typing.get_origin(kind) is tuple:
        if isinstance(value, (list, tuple)) and all(type(v) is int for v in value):
            return tuple(value)
        raise InputError(f"setting {name}: expected a list of whole numbers such as [6, 9], found {value!r}")
    if type(value) is not kind or (kind is float and not abs(value) < float("inf")):
        raise InputError(f"setting {name}: expected {kind.__name__}, found {value!r} ({type(value).__name__})")
    return value


def _one_folder(*ends: str) -> bool:
    """Whether two data sets are one folder, however it is written; embedded domains are none."""
    return not set(ends) & set(EMBEDDED_DOMAINS) and len({Path(end).resolve() for end in ends}) == 1


def one_of(what: str, value: Any, known: typing.Iterable[str]) -> None:
    """Refuse a value that is none of the known ones, with the nearest of them."""
    known = list(known)
    if value not in known:
        near = get_close_matches(str(value), known, 1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise InputError(f"unknown {what} {value!r}: {hint}known are {', '.join(known)}")
