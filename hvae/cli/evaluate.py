"""`hvae eval`: bits per dimension of held-out images."""

import math
from collections.abc import Callable
from dataclasses import asdict
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hvae.cli.candidates import SAMPLES, Made
from hvae.cli.comparison import Comparison, in_words
from hvae.cli.fid_options import Features
from hvae.cli.options import Data, Json, Run, Seed
from hvae.cli.output import print_result, progress, table
from hvae.cli.sides import RunSide, SetSide

if TYPE_CHECKING:
    from hvae.data import ImageSource
    from hvae.metrics import LikelihoodResult
    from hvae.models import HVAE

PROTOCOL = "beta 1, no free bits, averaged weights, every image once"


class SplitName(StrEnum):
    """The splits of a set."""

    TRAIN = "train"
    TEST = "test"


def evaluate(
    run: Run,
    importance: Annotated[
        int,
        typer.Option(
            min=1, help="Importance samples per image, for a tighter bound; 1 is the ELBO alone."
        ),
    ] = 1,
    images: Annotated[
        int | None,
        typer.Option(min=1, show_default="all", help="Score the first so many images only."),
    ] = None,
    split: Annotated[SplitName, typer.Option(help="Which images.")] = SplitName.TEST,
    data: Data = None,
    batch: Annotated[int, typer.Option(min=1, help="Images per forward pass.")] = 64,
    fid: Annotated[
        bool,
        typer.Option("--fid", help="Also compare samples with the images; hvae fid does it alone."),
    ] = False,
    fid_samples: Annotated[int, typer.Option(min=2, help="Samples that are compared.")] = SAMPLES,
    features: Features = "inception",
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Score a trained model in bits/dim.

    Always by the ELBO; with --importance also by the tighter importance-weighted bound. A
    conditional model is told what the data says of each image.

    The noise of an image depends on its index and the seed alone, so the batch size changes no
    digit that matters.
    """
    from hvae.cli.run import open_data, open_model, saved_data, weights_record
    from hvae.metrics import evaluate_likelihood

    model, file = open_model(run)
    source = open_data(file, model, data, split.value)
    compare = None
    if fid:
        word = data or saved_data(file)["source"]
        compare = _comparing(RunSide(model, file), source, word, features, fid_samples, seed)
    with progress("images scored", min(images or len(source), len(source))) as update:
        result = evaluate_likelihood(
            model,
            source,
            seed=seed,
            importance=importance,
            images=images,
            batch=batch,
            progress=update,
        )
    weights = weights_record(file)
    likelihood, condition = model.config.likelihood, model.config.condition
    protocol = f"{model.likelihood.measures}; {PROTOCOL}"
    if condition.kind != "none":
        protocol += f"; given the {condition.kind} of each image, as the data has it"
    groups, levels = _groups(result, model), _levels(result, model)
    record = {
        **asdict(result),
        "groups": groups,
        "levels": levels,
        "likelihood_kind": likelihood.kind,
        "likelihood_bits": likelihood.bits if likelihood.applies("bits") else None,
        "likelihood_form": likelihood.form if likelihood.applies("form") else None,
        "condition": condition.kind,
        "protocol": protocol,
        **weights,
    }
    texts = [_summary(result, weights, protocol), _level_table(levels), _group_table(groups)]
    if compare is not None:
        record["fid"] = compare()
        texts.insert(1, in_words(record["fid"]))
    print_result(record, "\n\n".join(texts), as_json=json)


def _comparing(
    run: RunSide, source: "ImageSource", word: str, features: str, samples: int, seed: int
) -> Callable[[], dict[str, Any]]:
    """Returns what compares samples of a run with images, once the network is there."""
    from hvae.cli.measuring import Measuring
    from hvae.data.originals import Chosen
    from hvae.metrics.features import open_extractor
    from hvae.metrics.score import Scoring
    from hvae.training.distributed import World

    world = World()
    extractor = open_extractor(features, device=world.device)
    scoring = Scoring(("fid",), extractor.frechet_name, extractor.kernel_name, seed=seed)
    comparison = Comparison(run, SetSide(Chosen(source), word), Made(samples, seed=seed))
    return lambda: comparison.results(Measuring(extractor, world), scoring)


def _summary(result: "LikelihoodResult", weights: dict[str, str], protocol: str) -> str:
    error = "" if result.elbo_stderr is None else f" (standard error {result.elbo_stderr:.4f})"
    rows = {"ELBO": f"{result.elbo_bits_per_dim:.4f} bits/dim{error}"}
    if result.importance_bits_per_dim is not None:
        rows[f"IWAE-{result.importance}"] = f"{result.importance_bits_per_dim:.4f} bits/dim"
    rows |= {
        "nll, KL": f"{result.nll:.2f}, {result.kl:.2f} nats per image",
        "data": f"{result.dataset} {result.split}, {result.num_images} images, "
        f"sha256 {result.sha256[:16]}",
        "weights": f"{weights['checkpoint']}, sha256 {weights['checkpoint_sha256'][:16]}",
        "seed": str(result.seed),
        "protocol": protocol,
    }
    return table(rows)


def _groups(result: "LikelihoodResult", model: "HVAE") -> list[dict[str, Any]]:
    """Each latent group, coarse to fine: one whose KL is near zero has collapsed."""
    resolutions = [block.resolution for block in model.decoder.layout.decoder]
    return [
        {"group": group, "resolution": resolution, "latent": list(shape), **_kl(kl, result)}
        for group, (resolution, shape, kl) in enumerate(
            zip(resolutions, model.latent_shapes, result.kl_per_group, strict=True), start=1
        )
    ]


def _levels(result: "LikelihoodResult", model: "HVAE") -> list[dict[str, Any]]:
    """Each level, coarse to fine: all groups of one resolution together."""
    layout = model.decoder.layout
    nats: dict[int, list[float]] = {}
    for block, kl in zip(layout.decoder, result.kl_per_group, strict=True):
        nats.setdefault(block.resolution, []).append(kl)
    return [
        {"resolution": resolution, "shape": list(layout.shape_at(resolution)), "groups": len(kls)}
        | _kl(sum(kls), result)
        for resolution, kls in sorted(nats.items())
    ]


def _kl(nats: float, result: "LikelihoodResult") -> dict[str, float]:
    """A part of the KL in nats per image, in bits/dim, and as a share of the whole."""
    bits_per_dim = nats / (math.log(2) * result.num_dims)
    return {
        "kl": nats,
        "kl_bits_per_dim": bits_per_dim,
        "kl_share": nats / result.kl if result.kl else 0.0,
    }


def _level_table(levels: list[dict[str, Any]]) -> str:
    lines = ["level       groups     KL nats  bits/dim  share"]
    lines += [f"{_by(row['shape']):<10} {row['groups']:>7} {_columns(row)}" for row in levels]
    return "\n".join(lines)


def _group_table(groups: list[dict[str, Any]]) -> str:
    lines = ["group  latent         KL nats  bits/dim  share"]
    lines += [f"{row['group']:>5}  {_by(row['latent']):<10} {_columns(row)}" for row in groups]
    return "\n".join(lines)


def _by(shape: list[int]) -> str:
    return "x".join(map(str, shape))


def _columns(row: dict[str, Any]) -> str:
    return f"{row['kl']:>11.3f} {row['kl_bits_per_dim']:>9.4f} {row['kl_share']:>6.1%}"
