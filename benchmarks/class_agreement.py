"""Whether samples of a class look like it to a classifier that has only seen real images.

python benchmarks/class_agreement.py runs/fashion-mnist-conditional
python benchmarks/class_agreement.py RUN --guidance 1 1.5 2 3 --save benchmarks/results

A small convolutional network is trained on the training split of --real (a minute or two on one
core); its accuracy on the test split is what agreement is measured against. Of each class equally
many samples are drawn, and the share of those that the network gives the asked class is printed,
with its ratio to the accuracy.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import hvae
from hvae.bench.device import model_meter
from hvae.bench.machine import machine
from hvae.bench.measure import one_thread
from hvae.bench.report import keep
from hvae.data import DataConfig, ImageSource, open_source
from hvae.errors import HvaeError, UserError

BATCH = 64


@dataclass(frozen=True)
class Agreement:
    """How often samples drawn with one guidance are taken for the class that was asked."""

    guidance: float
    samples: int
    share: float
    share_of_accuracy: float
    by_class: dict[str, float]


def main(arguments: Sequence[str] | None = None) -> None:
    args = _parser().parse_args(arguments)
    with one_thread():
        model = hvae.load(args.run)
        train, test = (open_source(DataConfig(source=args.real), s) for s in ("train", "test"))
        if test.classes is None or test.classes != model.config.condition.classes:
            raise UserError(
                f"{args.run} knows the classes {model.config.condition.classes}, "
                f"{args.real} has {test.classes}"
            )
        classifier = trained_classifier(train, args.epochs, args.seed)
        accuracy = (predicted(classifier, _images(test)) == _labels(test)).double().mean().item()
        asked = torch.arange(len(test.classes)).repeat(args.num // len(test.classes))
        rows = []
        for guidance in args.guidance:
            x = model.sample(len(asked), cond=asked, guidance=guidance, seed=args.seed)
            right = (predicted(classifier, x) == asked).double()
            share = right.mean().item()
            by_class = {n: right[asked == k].mean().item() for k, n in enumerate(test.classes)}
            rows.append(Agreement(guidance, len(asked), share, share / accuracy, by_class))
        where = machine(model_meter("cpu"))
    text = table(rows, args.real, accuracy, len(test))
    print(text)
    if args.save:
        record = {
            "machine": where,
            "run": Path(args.run).name,
            "real": args.real,
            "accuracy": accuracy,
            "test_images": len(test),
            "rows": [asdict(row) for row in rows],
        }
        keep(record, text, "class_agreement", args.save)


def table(rows: Sequence[Agreement], real: str, accuracy: float, images: int) -> str:
    """One line per guidance; the class that is recognised least is named."""
    lines = [
        f"A classifier trained on {real} is right on {accuracy:.3f} of its {images} test images.",
        "",
        "| guidance | samples | taken for the asked class | share of the accuracy | least |",
        "| --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        name, least = min(row.by_class.items(), key=lambda item: item[1])
        lines.append(
            f"| {row.guidance:g} | {row.samples} | {row.share:.3f} | {row.share_of_accuracy:.3f} "
            f"| {name} {least:.2f} |"
        )
    return "\n".join(lines)


def trained_classifier(source: ImageSource, epochs: int, seed: int) -> nn.Module:
    """A small convolutional network that knows the classes of a set from its images."""
    torch.manual_seed(seed)
    channels, classes = source.shape[0], len(source.classes or ())
    network = nn.Sequential(
        nn.Conv2d(channels, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(64, 128, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(2),
        nn.Flatten(), nn.Dropout(0.3), nn.Linear(512, classes),
    )  # fmt: skip
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3)
    images, labels = _images(source), _labels(source)
    steps = epochs * (len(images) // BATCH)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(epochs):
        for rows in torch.randperm(len(images))[: len(images) // BATCH * BATCH].split(BATCH):
            x = images[rows]
            x = x.flip(-1) if torch.rand(()) < 0.5 else x
            loss = F.cross_entropy(network(scaled(x)), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return network.eval()


@torch.no_grad()
def predicted(network: nn.Module, x: Tensor) -> Tensor:
    """The class of each image, int64 (N,)."""
    return torch.cat([network(scaled(part)).argmax(1) for part in x.split(256)])


def scaled(x: Tensor) -> Tensor:
    """What the network takes of uint8 images."""
    return x.float() / 127.5 - 1


def _images(source: ImageSource) -> Tensor:
    return torch.stack([source[i] for i in range(len(source))])


def _labels(source: ImageSource) -> Tensor:
    if source.labels is None:
        raise UserError(f"{source.name} has no labels")
    return source.labels


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", help="a run of a model that is told classes")
    parser.add_argument("--real", default="fashion-mini", metavar="DATA", help="real images")
    parser.add_argument("--guidance", nargs="+", type=float, default=[1.0, 1.5, 2.0, 3.0])
    parser.add_argument("--num", type=int, default=500, help="samples for each guidance")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--save", type=Path, metavar="FOLDER", help="keep JSON and table there")
    return parser


if __name__ == "__main__":
    try:
        main()
    except HvaeError as error:
        sys.exit(str(error))
