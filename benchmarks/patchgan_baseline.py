"""What is usually done: a patch discriminator on reconstructions, weighed by gradient norms.

The comparison for `hvae refine`, from the formulas of Esser et al. (arXiv 2012.09841, "VQGAN"):

    L = -ELBO / D + w a L_G    w = |dL_nll/dW| / (|dL_G/dW| + 1e-4), at most 1e4; W the last layer
    L_G = -E D(x~)             x~ the mean of the likelihood given posterior latents
    L_D = (E relu(1 - D(x)) + E relu(1 + D(x~))) / 2

with a = 0.8, batch normalisation in the discriminator, and Adam of 4.5e-6 per image of a batch with
betas (0.5, 0.9), as they have it. All of the model is trained, so that its likelihood moves.
"""

import copy
import math
from collections.abc import Iterable
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hvae.models import HVAE
from hvae.ops.philox import make_rng
from hvae.training.progress import TrainingProgress

WEIGHT, MOST, LR_PER_IMAGE = 0.8, 1e4, 4.5e-6
_WIDTH, _SMALLEST = 64, 7  # channels; patches judged are not fewer than these a side
_TOLD_EVERY = 50  # steps


class PatchDiscriminator(nn.Sequential):
    """Logits (N, 1, H', W') of patches of images (N, C, H, W) in [-1, 1] (Isola et al. 2017)."""

    def __init__(self, channels: int, side: int) -> None:
        halvings = max(1, min(3, int(math.log2(side / _SMALLEST))))
        widths = [channels, *(_WIDTH * 2**n for n in range(halvings))]
        layers: list[nn.Module] = []
        for index, (inputs, outputs) in enumerate(pairwise(widths)):
            layers.append(nn.Conv2d(inputs, outputs, 4, stride=2, padding=1, bias=index == 0))
            if index:
                layers.append(nn.BatchNorm2d(outputs))
            layers.append(nn.LeakyReLU(0.2))
        last = min(2 * widths[-1], 8 * _WIDTH)
        layers += [nn.Conv2d(widths[-1], last, 4, padding=1, bias=False), nn.BatchNorm2d(last)]
        super().__init__(*layers, nn.LeakyReLU(0.2), nn.Conv2d(last, 1, 4, padding=1))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, 0.0, 0.02)
            elif isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.weight, 1.0, 0.02)


def trained_by_patches(
    model: HVAE,
    batches: Iterable[Tensor],
    *,
    seed: int = 0,
    progress: TrainingProgress | None = None,
) -> tuple[HVAE, list[dict[str, float]]]:
    """Returns a copy of a model after the conventional stage, and what was logged at each step.

    Args:
        model: trained, unconditional, of two-dimensional images.
        batches: uint8 (N, C, H, W) each.
        seed: of the discriminator's weights and the noise.
        progress: is told after every step.
    """
    model = copy.deepcopy(model).train().requires_grad_(True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        judge = PatchDiscriminator(model.shape[0], min(model.shape[1:])).to(model.device)
    last = model.decoder.out_conv.weight
    rows: list[dict[str, float]] = []
    optimizers: list[torch.optim.Optimizer] = []
    seen = 0
    for x in batches:
        if not optimizers:
            optimizers = [
                torch.optim.Adam(net.parameters(), lr=LR_PER_IMAGE * len(x), betas=(0.5, 0.9))
                for net in (model, judge)
            ]
        nll, kl, rebuilt = _passed(model, x, make_rng(seed, seen, x.device))
        seen += len(x)
        judge.requires_grad_(False)
        adversarial = -judge(rebuilt).mean()
        (by_nll,) = torch.autograd.grad(nll, last, retain_graph=True)
        (by_judge,) = torch.autograd.grad(adversarial, last, retain_graph=True)
        weight = (by_nll.norm() / (by_judge.norm() + 1e-4)).clamp(max=MOST).detach()
        _step(optimizers[0], nll + kl + WEIGHT * weight * adversarial)
        judge.requires_grad_(True)
        real, fake = judge(x.float() / 127.5 - 1), judge(rebuilt.detach())
        loss = (F.relu(1 - real).mean() + F.relu(1 + fake).mean()) / 2
        _step(optimizers[1], loss)
        rows.append({"nll": nll.item(), "discriminator": loss.item(), "weight": weight.item()})
        if progress is not None:
            progress.update(seen)
            if len(rows) % _TOLD_EVERY == 0:
                progress.report(seen, "  ".join(f"{n} {v:.4g}" for n, v in rows[-1].items()))
    return model.eval().requires_grad_(False), rows


def _passed(model: HVAE, x: Tensor, rng: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Returns distortion and rate in nats per dimension, and reconstructions in [-1, 1]."""
    features = model.encoder(model.likelihood.network_input(x))
    ladder = model.decoder(len(x), rng, features=features)
    distribution = model.likelihood(model.decoder.head(ladder.state))
    nll = -distribution.log_prob(x).mean() / model.num_dims
    kl = torch.stack(ladder.kl, 1).sum(1).mean() / model.num_dims
    return nll, kl, distribution.mean() / 127.5 - 1


def _step(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
