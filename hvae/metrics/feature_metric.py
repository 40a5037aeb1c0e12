"""What the metrics of features share: an extractor, real and fake states, their reduction."""

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from hvae.metrics.base import Float64Metric
from hvae.metrics.checks import check_finite, check_images, check_matrix


class Extractor(Protocol):
    """Images into features; an `nn.Module` with a `dim` is one."""

    @property
    def dim(self) -> int:
        """Width of the features."""
        ...

    def __call__(self, images: Tensor, /) -> Tensor:
        """Returns floating features (N, dim) of uint8 images (N, C, H, W)."""
        ...


class FeatureMetric(Float64Metric):
    """Base of metrics that compare features of real and fake images.

    `update(x, real=...)` takes uint8 images (N, C, H, W), or features (N, dim) where there is no
    extractor. As in torchmetrics' image metrics, states whose names begin with `real_` survive
    `reset` if `reset_real_features` is False.

        name                 default  meaning
        features             None     an `Extractor`; None: `update` is given features
        dim                  None     width of the features, wanted where `features` is None
        reset_real_features  True     whether `reset` forgets the reals too

    The extractor moves to the device of the metric, but is not registered as a part of it: a cast
    of a parent module does not round its weights, and no state dict or optimiser sees them.
    """

    features: Extractor | None
    dim: int

    def __init__(
        self,
        features: Extractor | None = None,
        dim: int | None = None,
        *,
        reset_real_features: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if features is not None and dim is None:
            self.dim = features.dim
        elif features is None and dim is not None:
            self.dim = dim
        else:
            raise ValueError("wanted either an extractor as features, or the width of them as dim")
        object.__setattr__(self, "features", features)  # nn.Module's would register it
        self.reset_real_features = reset_real_features

    def forward(self, *args: Any, **kwargs: Any) -> None:
        """Updates; returns nothing, because one batch is of one kind and has no score."""
        self.update(*args, **kwargs)

    def reset(self) -> None:
        """Forgets what was seen; not the reals if `reset_real_features` is False."""
        kept = {}
        if not self.reset_real_features:
            names = (name for name in self._defaults if name.startswith("real_"))
            # A copy, for lists are emptied in place.
            kept = {name: self._copy_state_dict()[name] for name in names}
        super().reset()
        for name, state in kept.items():
            setattr(self, name, state)

    def extract(self, x: Tensor, first: int) -> Tensor:
        """Returns the features (N, dim) that `x` is or stands for, all finite.

        Args:
            x: what `update` is given.
            first: images of the kind seen before, to count from in messages.

        Raises:
            ValueError: `x`, or what the extractor makes of it, is not as described on the class.
            UserError: a feature is not finite.
        """
        if self.features is not None:
            check_images(x)
            x = self.features(x.to(self.device))
        check_matrix(x, self.dim)
        check_finite(x, first=first)
        return x.detach().to(self.state_device)

    def scalar(self, value: float) -> Tensor:
        """Returns a score as a float64 tensor where the states lie."""
        return torch.tensor(value, dtype=torch.float64, device=self.state_device)

    def _apply(self, fn: Callable[[Tensor], Tensor], exclude_state: Any = "") -> nn.Module:
        """Moves the extractor with the states; casts neither."""
        super()._apply(fn, exclude_state)
        extractor: object = self.features
        if isinstance(extractor, nn.Module):
            extractor.to(self.device)
        return self


class CollectingMetric(FeatureMetric):
    """A feature metric that keeps the features of all images, in the dtype they come in."""

    real_features: list[Tensor]
    fake_features: list[Tensor]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name in ("real_features", "fake_features"):
            self.add_state(name, [], dist_reduce_fx="cat")

    def update(self, x: Tensor, real: bool) -> None:
        """Adds images, or features where there is no extractor; see `FeatureMetric`.

        Raises:
            ValueError, UserError: as `FeatureMetric.extract`.
        """
        blocks = self.real_features if real else self.fake_features
        blocks.append(self.extract(x, first=sum(len(block) for block in blocks)))

    def all_features(self, *, real: bool) -> Tensor:
        """Returns the features of one kind, (N, dim) float64."""
        held = self.real_features if real else self.fake_features
        # Gathered from several ranks they are one tensor already.
        return self._joined(held) if isinstance(held, list) else held

    def _joined(self, blocks: list[Tensor]) -> Tensor:
        none = torch.empty(0, self.dim, dtype=torch.float64, device=self.state_device)
        return torch.cat([none, *blocks])

    def _sync_dist(self, *args: Any, **kwargs: Any) -> None:
        """Gathers over ranks, whose tensors must have one dtype, also where a rank saw nothing."""
        for name in self._defaults:
            setattr(self, name, [self._joined(getattr(self, name))])
        super()._sync_dist(*args, **kwargs)
