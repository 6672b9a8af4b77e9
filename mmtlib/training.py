"""One step of training: Mutual Mean-Teaching with its parts as switches, co-teaching, cluster contrast, the source."""

import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmtlib import InputError
from mmtlib.distances import repeatable_convolutions
from mmtlib.ema import update_mean_network
from mmtlib.losses import batch_hard, soft_cross_entropy, soft_softmax_triplet, softmax_triplet

Parts = dict[str, Tensor]  # named loss parts of a step, detached scalars


def mmt_step(
    networks: Sequence[nn.Module],
    means: Sequence[nn.Module],
    optimizer: torch.optim.Optimizer,
    views: Sequence[Tensor],
    pids: Tensor,
    *,
    soft_ce_weight: float,
    soft_tri_weight: float,
    alpha: float,
    step: int | Tensor,
    teacher: str = "other mean",
    label_smoothing: float = 0.1,
    autocast: AbstractContextManager | None = None,
) -> Parts:
    """One step of Mutual Mean-Teaching (paper, equations 5–9), or of a method that lacks some of its parts.

    Network i sees view i. The soft targets come from the other network's mean, which sees its own view; last, each
    mean moves to its network.

    Args:
        networks: One or two, in train mode: features (B, D) and logits (B, K) of a view.
        means: Their mean networks, in train mode too; may be empty if the teacher is no mean.
        views, pids: One augmented batch (B, 3, H, W) per network, of the same images; their labels (B), 0 … K − 1.
        soft_ce_weight, soft_tri_weight, label_smoothing: λ_id and λ_tri in [0, 1]; ε of the hard classification loss.
        alpha, step: Momentum of the mean networks, and the steps taken before this one.
        teacher: "other mean" (MMT), "own mean" (mean teacher), "other network" (mutual learning) or "none".
        autocast: Context for the forward passes (mixed precision); the losses always run outside of it.

    Returns:
        hard_ce, soft_ce, hard_triplet, soft_triplet (sums over the networks), loss and accuracy; not waited for, and
        found by `Meter` where they are not finite.

    Raises:
        InputError: A soft loss without a teacher, or a batch with one identity.
    """
    with autocast or nullcontext():
        outputs = [network(view) for network, view in zip(networks, views, strict=True)]
        with torch.no_grad():  # also without a soft loss: their batch norms need the statistics
            mean_outputs = [mean(view) for mean, view in zip(means, views)]
    ce, tri = soft_ce_weight, soft_tri_weight
    taught = _teachers(teacher, outputs, mean_outputs, needed=ce > 0 or tri > 0)
    triplets = [batch_hard(f, pids) for f, _ in outputs]
    of = list(zip(outputs, taught, triplets))  # per network ((f, z), (f', z'), triplets)

    hard_ce = _sum(ce < 1, pids, (F.cross_entropy(z, pids, label_smoothing=label_smoothing) for (_, z), _, _ in of))
    soft_ce = _sum(ce > 0, pids, (soft_cross_entropy(z, t) for (_, z), (_, t), _ in of))  # equation 7
    hard_triplet = _sum(tri < 1, pids, (softmax_triplet(f, pids, mined) for (f, _), _, mined in of))  # 4
    soft_triplet = _sum(tri > 0, pids, (soft_softmax_triplet(f, t, pids, mined) for (f, _), (t, _), mined in of))  # 8
    loss = (1 - ce) * hard_ce + ce * soft_ce + (1 - tri) * hard_triplet + tri * soft_triplet  # equation 9

    _descend(optimizer, loss)
    for mean, network in zip(means, networks):
        update_mean_network(mean, network, alpha, step)  # equation 5
    parts = {"hard_ce": hard_ce, "soft_ce": soft_ce}
    parts |= {"hard_triplet": hard_triplet, "soft_triplet": soft_triplet}
    return _record(parts, loss, [z for _, z in outputs], pids)


def _sum(used: bool, like: Tensor, terms: Iterable[Tensor]) -> Tensor:
    """The sum over the networks, or a 0 that is not computed."""
    return torch.stack(list(terms)).sum() if used else torch.zeros((), device=like.device)


def _teachers(teacher: str, outputs: list, mean_outputs: list, *, needed: bool) -> list:
    """For each network the features and logits that teach it; refused where soft losses need what is not there."""
    taught = outputs if teacher == "other network" else mean_outputs
    if not needed:
        return [(None, None)] * len(outputs)
    if len(taught) < len(outputs):
        raise InputError(f"{len(outputs)} networks have {len(taught)} teachers: pass a mean network for each")
    return taught[::-1] if teacher.startswith("other") else taught


def co_teaching_step(
    networks: Sequence[nn.Module],
    optimizer: torch.optim.Optimizer,
    views: Sequence[Tensor],
    pids: Tensor,
    *,
    keep: float,
    label_smoothing: float = 0.1,
    autocast: AbstractContextManager | None = None,
) -> Parts:
    """One step of co-teaching (Han et al. 2018): each network learns from what the *other* one finds easy.

    `keep` in (0, 1] is the share of the batch, of the smallest classification losses, that is passed on; the rest is as
    in `mmt_step`.

    Differs from: Han et al. have no metric loss; here the kept images also enter the softmax-triplet loss, as in
    every other row of the table. Where fewer than two identities are kept, that part is 0.
    """
    with autocast or nullcontext():
        outputs = [network(view) for network, view in zip(networks, views, strict=True)]
    losses = [F.cross_entropy(z, pids, label_smoothing=label_smoothing, reduction="none") for _, z in outputs]
    count = max(1, round(keep * len(pids)))
    parts = {"hard_ce": [], "hard_triplet": []}
    for i, (features, _) in enumerate(outputs):
        easy = losses[1 - i].detach().topk(count, largest=False).indices
        parts["hard_ce"].append(losses[i][easy].mean())
        kept = pids[easy]
        # Of one identity it is NaN on a GPU, which becomes 0.
        if pids.is_cuda or bool((kept != kept[0]).any()):
            parts["hard_triplet"].append(softmax_triplet(features[easy], kept).nan_to_num(0.0))
    parts = {name: _sum(bool(terms), pids, terms) for name, terms in parts.items()}
    loss = parts["hard_ce"] + parts["hard_triplet"]
    _descend(optimizer, loss)
    zero = torch.zeros((), device=pids.device)
    return _record(parts | {"soft_ce": zero, "soft_triplet": zero}, loss, [z for _, z in outputs], pids)


def cluster_contrast_step(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    view: Tensor,
    pids: Tensor,
    *,
    temperature: float = 0.05,
    momentum: float = 0.1,
    autocast: AbstractContextManager | None = None,
) -> Parts:
    """One step of Cluster Contrast (Dai et al. 2021): InfoNCE of each image against a memory of cluster centroids.

    The memory φ (K, D) is the network's classifier, whose rows an epoch starts at the clusters' mean embeddings; no
    gradient flows to it. L = −(1/B) Σ_i log softmax(q_i · φ / τ)[pid_i] with unit queries q, and after the step
    φ_y ← m φ_y + (1 − m) q_i, at unit length again, image by image.

    `temperature` is τ, `momentum` m, as published; the other arguments are as in `mmt_step`, and returned are info_nce,
    loss and accuracy.
    """
    with autocast or nullcontext():
        queries = F.normalize(network.pooled_and_neck(view)[1])
    memory = network.classifier.weight.detach()
    logits = queries @ memory.T / temperature
    loss = F.cross_entropy(logits, pids)
    _descend(optimizer, loss)
    for query, pid in zip(queries.detach(), pids[:, None]):
        moved = momentum * memory[pid] + (1 - momentum) * query
        memory.index_copy_(0, pid, F.normalize(moved))
    return _record({"info_nce": loss}, loss, [logits], pids)


def source_step(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    source: Tensor,
    pids: Tensor,
    target: Tensor,
    *,
    label_smoothing: float = 0.1,
    autocast: AbstractContextManager | None = None,
) -> Parts:
    """One step of source pre-training: classification and softmax-triplet loss on the source batch.

    The target batch (B', 3, H, W) goes forward through the same network in train mode and moves its batch-norm
    statistics; no loss is taken on it. The other arguments are as in `mmt_step`.
    """
    with autocast or nullcontext():
        features, logits = network(source)
        with torch.no_grad():
            network(target)
    parts = {"hard_ce": F.cross_entropy(logits, pids, label_smoothing=label_smoothing)}
    parts["hard_triplet"] = softmax_triplet(features, pids)
    loss = parts["hard_ce"] + parts["hard_triplet"]
    _descend(optimizer, loss)
    return _record(parts, loss, [logits], pids)


def _descend(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()


def _record(parts: Parts, loss: Tensor, logits: list[Tensor], pids: Tensor) -> Parts:
    """What a step returns: its parts, the loss, and the share of the batch that is labelled as given; detached."""
    accuracy = torch.stack([(z.argmax(1) == pids).float().mean() for z in logits]).mean()
    return {name: part.detach() for name, part in (parts | {"loss": loss, "accuracy": accuracy}).items()}


class Meter:
    """Means of the parts of many steps, and the first step with a part that was not finite, kept on their device."""

    def __init__(self) -> None:
        self.names: tuple[str, ...] = ()
        self.sums = self.broken = torch.empty(0)

    def add(self, parts: Parts) -> None:
        """Count one step's parts; waits for nothing."""
        values = torch.stack([value.double() for value in parts.values()])
        if not self.names:
            self.names = tuple(parts)
            # Per part and for the count of steps, last; and what the first broken step left there.
            self.sums = torch.zeros(len(parts) + 1, dtype=torch.float64, device=values.device)
            self.broken = torch.zeros_like(self.sums)
        self.sums += torch.cat([values, values.new_ones(1)])
        first = ~torch.isfinite(self.sums).all() & torch.isfinite(self.broken).all()
        self.broken.copy_(torch.where(first, self.sums, self.broken))

    def check(self) -> None:
        """Wait for the device, and refuse what is not finite.

        Raises:
            FloatingPointError: Names the first step (from 1) whose loss was not finite, and the parts.
        """
        *sums, steps = self.broken.tolist() if self.names else [0.0]
        if parts := [name for name, value in zip(self.names, sums) if not math.isfinite(value)]:
            raise FloatingPointError(
                f"the loss is not finite in step {steps:.0f} of the epoch ({', '.join(parts)}): lower the learning "
                "rate, or set precision=float32; the last checkpoint is whole, so the run goes on from there"
            )

    def means(self) -> dict[str, float]:
        """The mean of each part over the steps so far, checked."""
        self.check()
        *sums, steps = self.sums.tolist()
        return {name: value / steps for name, value in zip(self.names, sums)}


STEPS_BETWEEN_CHECKS = 32
EAGER_STEPS = 3  # before a capture, so that every library has chosen its kernels


@repeatable_convolutions()
def take_steps(
    step: Callable[..., Parts], inputs: Iterable[Sequence[Tensor]], first: int = 0, *, graph: bool = True
) -> dict[str, float]:
    """Take a step per element of `inputs`, tensors of the same shapes each time, and give the means of its parts.

    Args:
        step: Called with the number of the step (a tensor where it is captured) and an element's tensors.
        graph: On a GPU, replay the steps as a CUDA graph, whose launch costs little; False: every kernel by itself.

    Raises:
        FloatingPointError: A loss was not finite; found within `STEPS_BETWEEN_CHECKS` steps.
    """
    meter = Meter()
    for number, tensors in enumerate(inputs):
        if graph and tensors[0].is_cuda:
            if number == 0:
                replay = _Replay(step, first, meter)
            replay(number, tensors)
        else:
            meter.add(step(first + number, *tensors))
        if (number + 1) % STEPS_BETWEEN_CHECKS == 0:
            meter.check()
    return meter.means()


class _Replay:
    """Takes the first steps one kernel at a time, records the next one as a CUDA graph, and replays that."""

    def __init__(self, step: Callable[..., Parts], first: int, meter: Meter) -> None:
        self.step, self.meter = step, meter
        self.stream = torch.cuda.Stream()
        self.number = torch.tensor(first, device="cuda")
        self.graph = torch.cuda.CUDAGraph()
        self.tensors: list[Tensor] = []

    def _once(self, tensors: Sequence[Tensor]) -> None:
        self.meter.add(self.step(self.number, *tensors))
        self.number += 1

    def __call__(self, number: int, tensors: Sequence[Tensor]) -> None:
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream):
            if number < EAGER_STEPS:
                self._once(tensors)
            else:
                if number == EAGER_STEPS:
                    self.tensors = [tensor.clone() for tensor in tensors]
                    with torch.cuda.graph(self.graph, stream=self.stream):
                        self._once(self.tensors)
                for mine, given in zip(self.tensors, tensors):
                    mine.copy_(given)
                self.graph.replay()
        torch.cuda.current_stream().wait_stream(self.stream)


def adam(networks: Sequence[nn.Module], lr: float, weight_decay: float) -> torch.optim.Adam:
    """Adam over all trainable parameters (the neck's bias is frozen)."""
    parameters = [p for network in networks for p in network.parameters() if p.requires_grad]
    return torch.optim.Adam(parameters, lr=lr, weight_decay=weight_decay, fused=True, capturable=parameters[0].is_cuda)
