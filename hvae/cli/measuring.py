"""How `hvae fid` and `hvae fid-stats` measure images, alone or as one of several processes."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hvae.cli.output import progress

if TYPE_CHECKING:
    from torch import Tensor

    from hvae.metrics.collect import Images, Measure
    from hvae.metrics.features import Extractor
    from hvae.metrics.reference import Reference
    from hvae.metrics.score import Score
    from hvae.training.distributed import World

Rows = dict[str, "Tensor"]


def open_network(
    name: str, protocol: str | None, weights: Path | None, world: "World", *, download: bool
) -> "Extractor":
    """Returns the network of a name in every process; the first one alone fetches and converts.

    Raises:
        UserError: as `hvae.metrics.features.open_extractor`, in all processes.
    """
    from hvae.metrics.features import open_extractor
    from hvae.metrics.features.inception import INCEPTION

    opened: list[Extractor] = []
    for turn in (True, False):
        with (
            world.agreed(),
            progress("bytes of weights", INCEPTION.num_bytes)
            if download
            else nullcontext() as done,
        ):
            if world.first is turn:
                opened.append(
                    open_extractor(
                        name,
                        protocol=protocol,
                        weights=weights,
                        download=download and turn,
                        device=world.device,
                        progress=done and (lambda received, _expected: done(received)),
                    )
                )
    return opened[0]


@dataclass
class Measuring:
    """Takes the rows of images, shared among processes.

    Attributes:
        extractor: the network.
        world: the processes.
        batch: images at a time.
        sharpness: whether spectrum and gradients are measured too.
        seconds: what "images" (making or reading them), "features" and "scores" took so far.
        images: how many were measured so far, by all processes.
    """

    extractor: "Extractor"
    world: "World"
    batch: int = 64
    sharpness: bool = False
    seconds: dict[str, float] = field(
        default_factory=lambda: {"images": 0.0, "features": 0.0, "scores": 0.0}
    )
    images: int = 0

    def rows(self, images: "Images", what: str, beside: "Images | None" = None) -> Rows:
        """Returns the rows of all images, the same in every process.

        Args:
            images: what is measured.
            what: for the progress.
            beside: images that these stand for; adds their PSNR and SSIM.

        Raises:
            UserError: an image cannot be read, or its features are not finite; which one.
        """
        from hvae.metrics.collect import part_of
        from hvae.metrics.measures import features_by, fidelity_to
        from hvae.training.sample_quality import measured

        measures = {"features": features_by(self.extractor)}
        if self.sharpness:
            measures["sharpness"] = self._sharpness_of
        if beside is not None:
            measures["fidelity"] = fidelity_to(beside)
        part = part_of(len(images), self.world.rank, self.world.size)
        with progress(what, len(part)) if self.world.first else nullcontext() as update:
            rows = measured(
                measures,
                images,
                self.world,
                batch=self.batch,
                progress=update,
                seconds=self.seconds,
            )
        self.images += len(images)
        return rows

    def scored(self, scores: "Callable[[], Iterable[Score]]") -> list[dict[str, Any]]:
        """Returns the records of scores, computed in the first process, in all of them.

        Raises:
            UserError: as `scores` does.
        """
        began = time.monotonic()
        found: list[dict[str, Any]] = self.world.by_first(
            lambda: [score.record() for score in scores()]
        )
        self.seconds["scores"] += time.monotonic() - began
        return found

    def read(self, file: Path) -> "Reference":
        """Returns the reference in a file.

        Raises:
            UserError: it cannot be read, or was made with another network or protocol.
        """
        from hvae.metrics.reference import check_fits, load_reference

        reference = load_reference(file)
        check_fits(reference, {**self._made_with(), "dim": str(self.extractor.dim)}, file)
        return reference

    def reference(
        self, images: "Images", found: Mapping[str, Any], chosen: Sequence[int]
    ) -> tuple["Reference", Rows]:
        """Measures what others are compared with; returns it, and its rows.

        Args:
            images: the real ones.
            found: what a record says of where they come from, with a "sha256" of it all.
            chosen: places of the images in that.
        """
        from hvae.metrics.moments import statistics
        from hvae.metrics.reference import Reference, content_hash

        rows = self.rows(images, "real images")
        extractor = self.extractor
        content = content_hash(found["sha256"], extractor.sha256, extractor.protocol, chosen)
        provenance = {name: str(value) for name, value in found.items()}
        provenance |= {**self._made_with(), "content_hash": content}
        began = time.monotonic()
        known = statistics(rows["features"]).factored()  # for all that is compared with it
        self.seconds["scores"] += time.monotonic() - began
        return Reference(known, provenance, rows["features"]), rows

    @cached_property
    def _sharpness_of(self) -> "Measure":
        """One for all sets: it compares their sizes."""
        from hvae.metrics.measures import sharpness_of

        return sharpness_of()

    def _made_with(self) -> dict[str, str]:
        return {
            "features": self.extractor.name,
            "features_sha256": self.extractor.sha256,
            "protocol": self.extractor.protocol,
        }

    def record(self) -> dict[str, Any]:
        """Returns what a record says of how it was measured."""
        import torch

        from hvae import __version__

        extractor, seconds = self.extractor, self.seconds
        return {
            **self._made_with(),
            "features_dim": extractor.dim,
            "dtype": "float32",
            "device": str(extractor.device),
            "world_size": self.world.size,
            "threads": torch.get_num_threads(),
            "hvae": __version__,
            "torch": torch.__version__,
            "seconds": {name: round(value, 3) for name, value in seconds.items()},
            "features_per_second": self.images / max(seconds["features"], 1e-9),
        }
