"""How likely a model finds a set of images: the ELBO and the importance-weighted bound.

The noise of an image is a function of its index and the seed alone, so a score is the same for
every batch size, up to the rounding of the networks.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from hvae.errors import HvaeError, UserError
from hvae.models import HVAE
from hvae.ops.philox import derive_seed, make_rng


class Identified(Protocol):
    """What names the content of a set."""

    @property
    def sha256(self) -> str:
        """Content hash, hexadecimal."""
        ...


class ImageSet(Protocol):
    """One split of a set of images, uint8 (C, H, W) each; `hvae.data.ImageSource` is one.

    Labels (N,) and conditions (N, ...) are read for a conditional model only.
    """

    name: str
    split: str
    labels: Tensor | None
    conditions: Tensor | None

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Tensor: ...

    def identity(self) -> Identified:
        """Returns what the record of a score says about the set."""
        ...


@dataclass(frozen=True)
class LikelihoodResult:
    """Scores of a model on a set of images, and everything needed to get them again."""

    elbo_bits_per_dim: float
    """-ELBO in bits per dimension, mean over images: an upper bound on the true figure."""

    elbo_stderr: float | None
    """Standard error of that mean over images, bits per dimension; None for one image."""

    importance_bits_per_dim: float | None
    """The tighter importance-weighted bound; None where `importance` is 1."""

    importance: int
    """Importance samples per image."""

    nll: float
    """-ln p(x | z), nats per image."""

    kl: float
    """KL(q || p) over all groups, nats per image."""

    kl_per_group: tuple[float, ...]
    """KL of each latent group, coarse to fine, nats per image."""

    num_images: int
    """Images scored: the first ones of the split."""

    num_dims: int
    """Data dimensions of one image, which bits per dimension divide by."""

    seed: int
    """The seed that was given; the noise is drawn under one derived from it."""

    estimators: tuple[str, ...]
    """What was estimated: "ELBO", and "IWAE-K" with K importance samples."""

    dataset: str
    split: str
    sha256: str
    """Of the whole split, see the `identity` of the data."""


def nats_to_bits_per_dim(log_prob: Tensor, num_dims: int) -> Tensor:
    """Returns -log_prob / (ln 2 num_dims): bits per dimension of a log-probability in nats."""
    return -log_prob / (math.log(2) * num_dims)


def importance_bound(log_weights: Tensor) -> Tensor:
    """Returns ln((1/K) sum_k w_k), the importance-weighted bound on ln p(x), float64 (N,).

    In expectation it rises with K, from the ELBO at K = 1 to ln p(x). Equation 8 of Burda et al.,
    "Importance Weighted Autoencoders" (arXiv 1509.00519).

    Args:
        log_weights: (N, K) ln p(x, z_k) - ln q(z_k | x) with z_k ~ q(z | x), nats.
    """
    return log_weights.double().logsumexp(1) - math.log(log_weights.shape[1])


@torch.no_grad()
def evaluate_likelihood(
    model: HVAE,
    source: ImageSet,
    *,
    seed: int = 0,
    importance: int = 1,
    images: int | None = None,
    batch: int = 64,
    progress: Callable[[int], None] | None = None,
) -> LikelihoodResult:
    """Returns the scores of a model on a set; every image counts once, the last batch included.

    Args:
        model: scored as it is: the caller chooses averaged weights and evaluation mode.
        source: the images; a conditional model is told what the set says of each.
        seed: of the posterior noise.
        importance: importance samples per image (K); 1 scores the ELBO alone.
        images: score the first so many images only. None: all.
        batch: rows per forward pass; an image takes one row, or K for the importance-weighted
            bound, which may spread over many passes. Memory depends on this alone.
        progress: called with the number of images done so far.

    Raises:
        UserError: there is nothing to score, or a number is below 1.
        HvaeError: an image has a likelihood that is not finite.
    """
    count = _count(source, images, importance=importance, batch=batch)
    noise_seed = derive_seed(seed, "evaluation")
    nll, kl, bounds = [], [], []
    for start in range(0, count, batch):
        x = torch.stack([source[i] for i in range(start, min(start + batch, count))])
        x = x.to(model.device)
        rng = make_rng(noise_seed, start, x.device)
        told = _told(model, source, x, start, rng)
        elbo = model(x, *told, rng=rng)
        _check_finite(elbo.elbo, source, start)
        nll.append(elbo.nll.double().cpu())
        kl.append(elbo.kl.double().cpu())
        if importance > 1:
            tighter = _importance_bounds(model, x, told, noise_seed, start, importance, batch)
            bounds.append(tighter.cpu())
        if progress is not None:
            progress(start + len(x))

    kl_per_group = torch.cat(kl).mean(0)
    elbo_bits = nats_to_bits_per_dim(-torch.cat(nll) - torch.cat(kl).sum(1), model.num_dims)
    bound = nats_to_bits_per_dim(torch.cat(bounds), model.num_dims).mean() if bounds else None
    return LikelihoodResult(
        elbo_bits_per_dim=elbo_bits.mean().item(),
        elbo_stderr=elbo_bits.std().item() / math.sqrt(count) if count > 1 else None,
        importance_bits_per_dim=None if bound is None else bound.item(),
        importance=importance,
        nll=torch.cat(nll).mean().item(),
        kl=kl_per_group.sum().item(),
        kl_per_group=tuple(kl_per_group.tolist()),
        num_images=count,
        num_dims=model.num_dims,
        seed=seed,
        estimators=("ELBO",) if importance == 1 else ("ELBO", f"IWAE-{importance}"),
        dataset=source.name,
        split=source.split,
        sha256=source.identity().sha256,
    )


def _count(source: ImageSet, images: int | None, **at_least_one: int) -> int:
    """How many images are scored, after the arguments are checked."""
    if images is not None:
        at_least_one["images"] = images
    for name, value in at_least_one.items():
        if value < 1:
            raise UserError(f"{name} must be at least 1, got {value}")
    if len(source) == 0:
        raise UserError(f"{source.name} {source.split} has no images to score")
    return len(source) if images is None else min(images, len(source))


def _told(model: HVAE, source: ImageSet, x: Tensor, start: int, rng: Tensor) -> tuple[Tensor, ...]:
    """The conditions of images `start` on, for a model that takes any; nothing for another."""
    if getattr(model, "condition", None) is None:
        return ()
    labels, conditions = (
        None if known is None else known[start : start + len(x)]
        for known in (source.labels, source.conditions)
    )
    cond = model.condition_of(x, labels, conditions, rng=rng)
    return () if cond is None else (cond,)


def _importance_bounds(
    model: HVAE,
    x: Tensor,
    told: tuple[Tensor, ...],
    noise_seed: int,
    start: int,
    importance: int,
    rows: int,
) -> Tensor:
    """The bound of each image of a batch, (N,) float64, in passes of at most `rows` rows.

    Sample k of image i has index i * importance + k.
    """
    log_sums = torch.full((len(x),), -math.inf, dtype=torch.float64, device=x.device)
    for images, samples in _blocks(len(x), importance, rows):
        first = (start + images.start) * importance + samples.start
        count = samples.stop - samples.start
        repeated = [rows[images].repeat_interleave(count, 0) for rows in (x, *told)]
        log_weights = model.log_weights(*repeated, rng=make_rng(noise_seed, first, x.device))
        block = log_weights.double().view(-1, count).logsumexp(1)
        log_sums[images] = torch.logaddexp(log_sums[images], block)
    return log_sums - math.log(importance)


def _blocks(num_images: int, importance: int, rows: int) -> Iterator[tuple[slice, slice]]:
    """Cuts (image, sample) pairs into (images, samples) blocks whose sample indices are contiguous.

    Either several images with all their samples, or a part of the samples of one image.
    """
    images_per_block = max(1, rows // importance)
    samples_per_block = min(importance, rows)
    for image in range(0, num_images, images_per_block):
        for sample in range(0, importance, samples_per_block):
            yield (
                slice(image, min(image + images_per_block, num_images)),
                slice(sample, min(sample + samples_per_block, importance)),
            )


def _check_finite(elbo: Tensor, source: ImageSet, start: int) -> None:
    bad = (~elbo.isfinite()).nonzero().flatten().tolist()
    if bad:
        raise HvaeError(
            f"image {start + bad[0]} of {source.name} {source.split} has an ELBO of "
            f"{elbo[bad[0]].item()} nats; the model's weights may have diverged"
        )
