"""What a model makes, as rows of images that are computed when they are asked for."""

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from hvae.inference.reconstruct import reconstruct
from hvae.models import HVAE

Told = Callable[[int, int], "Tensor | None"]


class Rows(Protocol):
    """Images by their place."""

    def __len__(self) -> int: ...

    def take(self, start: int, stop: int, /) -> list[Tensor]:
        """Images `start` to `stop - 1`, uint8 (C, H, W) each."""
        ...


class Samples:
    """Samples 0 to `count - 1` of a seed.

    Args:
        model: its weights are used as they are.
        count: how many.
        seed, temperature, output, guidance, refined: as `HVAE.sample` takes them.
        told: conditions of samples `first` to `first + n - 1`, called with both. None: none.
    """

    def __init__(
        self,
        model: HVAE,
        count: int,
        *,
        seed: int = 0,
        temperature: float = 1.0,
        output: str = "sample",
        told: Told | None = None,
        guidance: float = 1.0,
        refined: bool | None = None,
    ) -> None:
        self.model, self.count, self.seed = model, count, seed
        self.temperature, self.output, self.refined = temperature, output, refined
        self.told, self.guidance = told, guidance

    def __len__(self) -> int:
        return self.count

    @torch.no_grad()
    def take(self, start: int, stop: int) -> list[Tensor]:
        """Samples `start` to `stop - 1`, uint8 (C, H, W) each, on the model's device."""
        images = self.model.sample(
            stop - start,
            temperature=self.temperature,
            output=self.output,
            cond=self.told and self.told(start, stop - start),
            guidance=self.guidance,
            seed=self.seed,
            first_index=start,
            refined=self.refined,
        )
        return list(images)

    def file(self, index: int) -> str:
        """What names an image in a message."""
        return f"sample {index} of seed {self.seed}"


class Reconstructions:
    """What a model makes of images, each from all of its latents.

    Args:
        model: its weights are used as they are.
        images: of the model's shape.
        mode: "sample" draws the posterior, "mean" takes its mean.
        seed: of the posterior draws.
        refined: as `reconstruct` takes it.
        told: conditions of images `first` to `first + n - 1`, called with both. None: none.
    """

    def __init__(
        self,
        model: HVAE,
        images: Rows,
        *,
        mode: str = "sample",
        seed: int = 0,
        told: Told | None = None,
        refined: bool | None = None,
    ) -> None:
        self.model, self.images = model, images
        self.mode, self.seed, self.told, self.refined = mode, seed, told, refined

    def __len__(self) -> int:
        return len(self.images)

    def take(self, start: int, stop: int) -> list[Tensor]:
        """Reconstructions `start` to `stop - 1`, uint8 (C, H, W) each, on the model's device."""
        originals = torch.stack(self.images.take(start, stop))
        images = reconstruct(
            self.model,
            originals,
            mode=self.mode,
            seed=self.seed,
            first_index=start,
            cond=self.told and self.told(start, stop - start),
            refined=self.refined,
        )
        return list(images)

    def file(self, index: int) -> str:
        """What names an image in a message."""
        return f"the reconstruction of image {index}"
