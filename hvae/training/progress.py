"""Progress on stderr: a bar with ETA on a terminal, plain lines otherwise; never both."""

import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from hvae.metrics.likelihood import LikelihoodResult


class TrainingProgress:
    """Shows how far a run is; `update` is cheap enough for every step.

    Args:
        total: images of the run.
        done: of them, before.
        quiet: show nothing, as another process does.
    """

    def __init__(self, total: int, done: int, *, quiet: bool = False) -> None:
        self.total = total
        self.start, self.started_at = done, time.monotonic()
        self.quiet = quiet
        self.console = Console(stderr=True, quiet=quiet)
        self.bar: Progress | None = None
        self.task = TaskID(0)

    def __enter__(self) -> Self:
        if self.console.is_terminal and not self.quiet:
            columns = (
                TextColumn("{task.completed:,.0f} / {task.total:,.0f} images"),
                BarColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.description}"),
            )
            self.bar = Progress(*columns, console=self.console)
            self.task = self.bar.add_task("", total=self.total, completed=self.start)
            self.bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.bar:
            self.bar.stop()

    def update(self, images: int) -> None:
        """Moves the bar."""
        if self.bar:
            self.bar.update(self.task, completed=images)

    def report(self, images: int, text: str) -> None:
        """Shows the latest figures beside the bar, or prints them with the ETA as a line."""
        if self.bar:
            self.bar.update(self.task, completed=images, description=text)
        elif not self.quiet:
            print(f"{images:,}/{self.total:,} images  {text}  ETA {self._eta(images)}",
                  file=sys.stderr, flush=True)  # fmt: skip

    def say(self, text: str) -> None:
        """Prints a line above the bar."""
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def _eta(self, images: int) -> str:
        elapsed = time.monotonic() - self.started_at
        seconds = elapsed * (self.total - images) / max(1, images - self.start)
        hours, minutes = int(seconds // 3600), int(seconds // 60 % 60)
        return f"{hours}:{minutes:02}:{int(seconds % 60):02}"


def train_line(row: Mapping[str, Any]) -> str:
    """Returns a row of kind train in words: its mean score, the throughput, the peak of memory."""
    skips = f"  {row['skips']} skipped" if row["skips"] else ""
    return (
        f"{row['bits_per_dim']:.3f} bits/dim (ELBO, train)  "
        f"{per_second(row['images_per_second'])}  {memory(row['memory_mib'])}{skips}"
    )


def eval_line(score: LikelihoodResult, images: int) -> str:
    """Returns a score on the way in words, after `images` images."""
    count = f"{score.num_images:,} images"
    return (
        f"{score.split} {score.elbo_bits_per_dim:.4f} bits/dim "
        f"(ELBO, {score.dataset} {score.split}, {count}) after {images:,} images"
    )


def quality_line(row: Mapping[str, Any]) -> str:
    """Returns a row of kind fid in words."""
    return (
        f"{row['metric']} {row['value']:.4g} ({row['n_fake']:,} samples, {row['n_real']:,} test "
        f"images, {row['protocol']}) after {row['images']:,} images"
    )


def per_second(rate: float) -> str:
    """Returns a throughput: few images a second need their decimals."""
    return f"{rate:.0f} images/s" if rate >= 10 else f"{rate:.3g} images/s"


def memory(mib: float) -> str:
    """Returns a peak of memory."""
    return f"peak {mib / 1024:.1f} GiB" if mib >= 1024 else f"peak {mib:.0f} MiB"
