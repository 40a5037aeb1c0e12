"""Images/s of loading alone: hvae from files and prepared, against a plain PyTorch Dataset.

python benchmarks/bench_loader.py --save benchmarks/results
python benchmarks/bench_loader.py --sizes 256 --workers 0 4 8 16 --device cuda
python benchmarks/bench_loader.py --sizes 256 --workers 4 --prefetch 1 2 4 8 --variants files

The images are JPEG photographs as a camera leaves them, made here: half as large again as what is
wanted, so that each is decoded, cropped and resized. The baseline is what one would write without
hvae: a Dataset of Pillow's open, convert and ImageOps.fit with the same filter, in a DataLoader.
Variants take turns; a round starts its workers anew and counts from the first batch on. Wall time:
only an idle machine tells anything. Prepared folders take no workers.
"""

import argparse
import itertools
import statistics
import tempfile
import time
from collections.abc import Generator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch.utils.data import DataLoader, Dataset

from hvae.bench.device import model_meter
from hvae.bench.machine import machine
from hvae.bench.measure import Quantiles
from hvae.bench.report import keep
from hvae.data import DataConfig, Loader, Prefetcher, open_source
from hvae.data.prepare import prepare
from hvae.data.workers import PREFETCH, usable_cores

VARIANTS = ("pytorch", "files", "prepared")
BATCH_VALUES = 2**22  # of one batch: 21 images of 256 pixels
LEAST_BATCH = 4
SOURCE_SCALE = 1.5

Batches = Generator[torch.Tensor, None, None]


class PillowDataset(Dataset[torch.Tensor]):
    """The baseline: files into uint8 tensors."""

    def __init__(self, files: list[Path], size: int) -> None:
        self.files, self.size = files, size

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> torch.Tensor:
        with Image.open(self.files[index]) as image:
            rgb = ImageOps.exif_transpose(image).convert("RGB")
        fitted = ImageOps.fit(rgb, (self.size, self.size), Image.Resampling.LANCZOS)
        return torch.from_numpy(np.array(fitted)).permute(2, 0, 1)


@dataclass(frozen=True)
class Row:
    """One variant: images per second over the rounds."""

    size: int
    variant: str
    workers: int
    prefetch: int
    batch: int
    images_per_second: list[float]


def main(arguments: Sequence[str] | None = None) -> None:
    args = _parser().parse_args(arguments)
    rows: list[Row] = []
    for size in args.sizes:
        with tempfile.TemporaryDirectory(dir=args.folder) as folder:
            rows += _measured(Path(folder), size, args)
    where = machine(model_meter(args.device))
    text = table(rows, where)
    print(text)
    if args.save:
        record = {"machine": where, "rows": [asdict(row) for row in rows]}
        keep(record, text, "loader", args.save)


def table(rows: Sequence[Row], where: dict[str, Any]) -> str:
    """Medians with the 20th and 80th percentile, and the ratio to the baseline's best."""
    lines = [
        f"{where['cpu']}, {usable_cores()} cores, {where['device']}, torch "
        f"{where['torch']}, commit {where['commit']}, {where['date'][:10]}. Wall time.",
        "",
        "| pixels | loader | workers | prefetch | batch | images/s (p20-p80) | x PyTorch |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    best = {
        size: max(
            (statistics.median(row.images_per_second) for row in rows if _is_baseline(row, size)),
            default=float("nan"),
        )
        for size in {row.size for row in rows}
    }
    for row in rows:
        found = Quantiles.of(row.images_per_second)
        rate = f"{found.p50:.1f} ({found.p20:.1f}-{found.p80:.1f})"
        setting = f"{row.size} | {row.variant} | {row.workers} | {row.prefetch} | {row.batch}"
        lines.append(f"| {setting} | {rate} | {found.p50 / best[row.size]:.2f} |")
    return "\n".join(lines)


def _is_baseline(row: Row, size: int) -> bool:
    return row.size == size and row.variant == "pytorch"


def _measured(folder: Path, size: int, args: argparse.Namespace) -> list[Row]:
    """All variants at one size, taking turns."""
    photos = write_photographs(folder / "photos", args.images, size)
    sources = {"files": DataConfig(source=str(photos), size=size, channels=3)}
    if "prepared" in args.variants:
        prepare(sources["files"], folder / "prepared")
        sources["prepared"] = DataConfig(source=str(folder / "prepared"))
    batch = max(LEAST_BATCH, BATCH_VALUES // (3 * size * size))
    device = torch.device(args.device)
    rows = []
    for variant, count, prefetch in itertools.product(args.variants, args.workers, args.prefetch):
        if variant != "prepared":
            rows.append(Row(size, variant, count, prefetch, batch, []))
        elif not any(row.variant == "prepared" for row in rows):
            rows.append(Row(size, variant, 0, 0, batch, []))
    for _ in range(args.rounds):
        for row in rows:
            if row.variant == "pytorch":
                batches = pytorch_batches(photos, row, device)
            else:
                batches = hvae_batches(sources[row.variant], row, device)
            row.images_per_second.append(_rate(batches, args.images, batch))
    return rows


def pytorch_batches(photos: Path, row: Row, device: torch.device) -> Batches:
    """Epoch after epoch, as the DataLoader of the baseline gives them."""
    loader = DataLoader(
        PillowDataset(sorted(photos.iterdir()), row.size),
        batch_size=row.batch,
        shuffle=True,
        drop_last=True,
        num_workers=row.workers,
        prefetch_factor=row.prefetch if row.workers else None,
        pin_memory=device.type == "cuda",
        persistent_workers=row.workers > 0,
    )
    while True:
        for batch in loader:
            yield batch.to(device, non_blocking=True)


def hvae_batches(config: DataConfig, row: Row, device: torch.device) -> Batches:
    """As training reads them."""
    source = open_source(config, "train")
    options = {"prefetch": row.prefetch} if row.prefetch else {}
    loader = Loader(source, batch=row.batch, seed=0, workers=row.workers, **options)
    with Prefetcher(loader.batches(0), device) as batches:
        for batch in batches:
            yield batch.images


def write_photographs(folder: Path, count: int, size: int) -> Path:
    """JPEG files of smooth colour with some grain, 3:2, landscape and upright."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    short, long = round(SOURCE_SCALE * size), round(1.5 * SOURCE_SCALE * size)
    for number in range(count):
        sides = (long, short) if number % 4 else (short, long)
        coarse = rng.integers(0, 256, (24, 16, 3), dtype=np.uint8)
        smooth = Image.fromarray(coarse).resize(sides, Image.Resampling.BICUBIC)
        grain = rng.normal(0, 6, (sides[1], sides[0], 3))
        pixels = (np.asarray(smooth) + grain).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:05}.jpg", quality=90)
    return folder


def _rate(batches: Batches, images: int, batch: int) -> float:
    """Images per second from the arrival of the first batch on, over one pass of the set."""
    next(batches)
    steps = max(2, images // batch)
    began = time.perf_counter()
    for _ in range(steps):
        latest = next(batches)
    if latest.is_cuda:
        torch.cuda.synchronize()
    seconds = time.perf_counter() - began
    batches.close()
    return steps * batch / seconds


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 1024])
    parser.add_argument("--images", type=int, default=200, help="files to make and read")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2])
    parser.add_argument("--prefetch", type=int, nargs="+", default=[PREFETCH])
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=VARIANTS)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu", help="where batches go: cpu or cuda")
    parser.add_argument("--folder", type=Path, help="where the files are made, for their disk")
    parser.add_argument("--save", type=Path, metavar="FOLDER", help="keep the table and a record")
    return parser


if __name__ == "__main__":
    main()
