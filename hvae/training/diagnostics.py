"""What the latents of a model do while it scores images: which are used, and for how much.

The ladder's blocks show what they draw, so that scoring itself is the same with and without.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor

from hvae.models import HVAE
from hvae.models.decoder import DecoderBlock
from hvae.ops.gaussian import parameters_of, std_code, std_of

COLLAPSED = 0.01  # nats of KL per image, of a group that carries nothing
ACTIVE = 0.01  # variance over images, of a unit that is used (Burda et al., arXiv 1509.00519)
LARGE_RAW_STD = 8.0
_COLUMNS = 2**14  # latent units compared at once, which bounds the memory


def collapsed_groups(kl_per_group: tuple[float, ...]) -> list[int]:
    """Returns the groups whose mean KL is under 0.01 nats, counted from 1, coarse to fine."""
    return [group for group, kl in enumerate(kl_per_group, 1) if not kl >= COLLAPSED]


def collapse_warning(kl_per_group: tuple[float, ...]) -> str | None:
    """Returns a warning that names the collapsed groups, or None."""
    groups = collapsed_groups(kl_per_group)
    if not groups:
        return None
    names = ", ".join(map(str, groups))
    noun, verb = ("group", "carries") if len(groups) == 1 else ("groups", "carry")
    return (
        f"warning: {noun} {names} of {len(kl_per_group)} {verb} nothing "
        f"(test KL under {COLLAPSED} nats per image)"
    )


class LatentStatistics:
    """Statistics per latent group over the images that a model scores, one draw each.

    In `row`, each a list from coarse to fine. q is the posterior given the draws of the groups
    above; "in units of the prior" means (z - mean_p) / std_p:

        latent_units              numbers in a group's latent
        active_units              of them, those with Var_x E_q[z] > 0.01
        active_units_given_above  the same of the mean in units of the prior: what a group adds to
                                  the groups above it, which move its prior too
        mutual_information        lower bound, nats, on I(x; z) in units of the prior:
                                  E [ln q(z | x) - ln (1/B) sum_j q(z | x_j)] over batches of B, at
                                  most ln B (Poole et al., arXiv 1905.06922, section 2.3)
        posterior_std_at_floor    share of stds less than the floor above the floor
        prior_std_at_floor        the same of the prior
        std_large                 share of raw stds above 8, of both

    and `mutual_information_limit`, ln B. Images must come in batches of one size, but for the last,
    which the mutual information leaves out if it is smaller.
    """

    def __init__(self, model: HVAE) -> None:
        self.blocks = [cast(DecoderBlock, block) for block in model.decoder.blocks]
        self.groups = [_Group(block) for block in self.blocks]

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Takes in the images that go through `model(x)` inside this context."""
        for block, group in zip(self.blocks, self.groups, strict=True):
            block.watcher = group.take_in
        try:
            yield
        finally:
            for block in self.blocks:
                block.watcher = None

    def row(self) -> dict[str, Any]:
        """Returns the statistics as JSON values."""
        rows = [group.row() for group in self.groups]
        limit = math.log(max(1, self.groups[0].batch))
        lists = {name: [row[name] for row in rows] for name in rows[0]}
        return {**lists, "mutual_information_limit": limit}


class _Group:
    """Sums over images of one latent group."""

    def __init__(self, block: DecoderBlock) -> None:
        self.block = block
        self.images = self.units = 0
        self.means, self.shifts = _Moments(), _Moments()
        self.shares = torch.zeros(3, dtype=torch.float64)
        self.batch = self.compared = 0
        self.information = 0.0

    def take_in(self, q: Tensor, p: Tensor, z: Tensor) -> None:
        """Adds a batch: posterior and prior as the op reads them, and the draw."""
        form, z_channels = self.block.form, self.block.z_channels
        mean_q, raw_q = parameters_of(q, z_channels)
        mean_p, raw_p = parameters_of(p, z_channels)
        code, floor = std_code(form.std), 0.0 if form.std == "log" else form.floor
        std_q, std_p = std_of(raw_q, code, floor), std_of(raw_p, code, floor)
        shift = (mean_q - mean_p) / std_p
        self.images += len(mean_q)
        self.units = mean_q[0].numel()
        self.means.add(mean_q)
        self.shifts.add(shift)
        large = torch.stack((raw_q > LARGE_RAW_STD, raw_p > LARGE_RAW_STD)).double().mean()
        low = [(std < 2 * floor).double().mean() for std in (std_q, std_p)]
        self.shares += len(mean_q) * torch.stack((*low, large)).cpu()
        self._compare((z - mean_p) / std_p, shift, std_q / std_p)

    def _compare(self, z: Tensor, mean: Tensor, std: Tensor) -> None:
        """Adds the draws' log-density under their own posterior over that under all of a batch."""
        self.batch = self.batch or len(z)
        if len(z) < self.batch:
            return
        log_q = _pairwise_log_density(z.flatten(1), mean.flatten(1), std.flatten(1))
        aggregate = log_q.logsumexp(1) - math.log(len(z))
        self.information += (log_q.diagonal() - aggregate).sum().item()
        self.compared += len(z)

    def row(self) -> dict[str, Any]:
        posterior, prior, large = (self.shares / max(1, self.images)).tolist()
        return {
            "latent_units": self.units,
            "active_units": self.means.count_above(ACTIVE),
            "active_units_given_above": self.shifts.count_above(ACTIVE),
            "mutual_information": self.information / max(1, self.compared),
            "posterior_std_at_floor": posterior,
            "prior_std_at_floor": prior,
            "std_large": large,
        }


class _Moments:
    """Mean and summed squared deviation of each unit over images, float64, batch by batch."""

    def __init__(self) -> None:
        self.count = 0
        self.mean: Tensor | float = 0.0
        self.squares: Tensor | float = 0.0

    def add(self, values: Tensor) -> None:
        values = values.double()
        mean, count = values.mean(0), len(values)
        total = self.count + count
        delta = mean - self.mean
        spread = delta.square() * (self.count * count / total)
        self.squares = self.squares + (values - mean).square().sum(0) + spread
        self.mean = self.mean + delta * (count / total)
        self.count = total

    def count_above(self, variance: float) -> int:
        """Returns how many units vary more than that; none where there are not two images."""
        if self.count < 2:
            return 0
        assert isinstance(self.squares, Tensor)
        return int((self.squares / (self.count - 1) > variance).sum())


def _pairwise_log_density(z: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Log-density ln N(z_i; mean_j, std_j) up to a constant, (N, N) float64, from (N, D) each."""
    total = torch.zeros(len(z), len(z), dtype=torch.float64, device=z.device)
    for start in range(0, z.shape[1], _COLUMNS):
        part = slice(start, start + _COLUMNS)
        z_part, mean_part, std_part = (t[:, part].double() for t in (z, mean, std))
        precision = std_part.square().reciprocal()
        total -= z_part.square() @ precision.T / 2 - z_part @ (mean_part * precision).T
        total -= (mean_part.square() * precision / 2 + std_part.log()).sum(1)
    return total
