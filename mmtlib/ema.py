"""The mean network E[θ]: an exponential moving average of a network's parameters."""

import torch
from torch import Tensor, nn

from mmtlib import InputError


@torch.no_grad()
def update_mean_network(mean: nn.Module, network: nn.Module, alpha: float, step: int | Tensor) -> None:
    """Move the mean network one step towards the network, in place.

    E_T[θ] = a E_{T−1}[θ] + (1 − a) θ (paper, equation 5), with the authors' warm-up a = min(1 − 1/(T + 1), α): at step
    0 the mean is a copy of the network, then the plain average of the first steps, and from step 1/(1 − α) on a moving
    average.
    Parameters only: the mean network runs in train mode and its batch norms keep statistics of their own
    (`torch.optim.swa_utils.AveragedModel` would copy the network's).

    Args:
        mean: Changed in place.
        network: Just updated by the optimiser; same architecture.
        alpha: The momentum α in [0, 1].
        step: T, counted over the whole adaptation from 0; a tensor where a CUDA graph counts for itself.

    Raises:
        InputError: The networks differ in architecture, or α or T are out of range; nothing was changed.
    """
    counted = isinstance(step, Tensor)
    if not 0 <= alpha <= 1 or not (counted or step >= 0):
        raise InputError(f"alpha = {alpha}, step = {step}: expected a momentum in [0, 1] and a step from 0")
    means, parameters = list(mean.parameters()), [p.detach() for p in network.parameters()]
    if [p.shape for p in means] != [p.shape for p in parameters]:
        raise InputError("the mean network has other parameters than the network: expected a copy of it")
    warm_up = 1 - 1 / (step + 1)
    momentum = warm_up.clamp(max=alpha) if counted else min(warm_up, alpha)
    torch._foreach_mul_(means, momentum)
    torch._foreach_add_(means, torch._foreach_mul(parameters, 1 - momentum))
