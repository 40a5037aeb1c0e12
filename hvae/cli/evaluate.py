"""`hvae eval`: bits per dimension of held-out images."""

from dataclasses import asdict
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from hvae.cli.options import Data, Json, Run, Seed
from hvae.cli.output import print_result, progress, table

if TYPE_CHECKING:
    from hvae.distributions import LikelihoodConfig
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
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Score a trained model in bits/dim.

    Always by the ELBO; with --importance also by the tighter importance-weighted bound. A
    conditional model is told what the data says of each image.

    The noise of an image depends on its index and the seed alone, so the batch size changes no
    digit that matters.
    """
    from hvae.cli.run import open_data, open_model, weights_record
    from hvae.metrics import evaluate_likelihood

    model = open_model(run)
    source = open_data(run, model, data, split.value)
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
    weights = weights_record(run)
    likelihood, condition = model.config.likelihood, model.config.condition
    protocol = _protocol(likelihood)
    if condition.kind != "none":
        protocol += f"; given the {condition.kind} of each image, as the data has it"
    record = {
        **asdict(result),
        "likelihood_bits": likelihood.bits,
        "likelihood_form": likelihood.form,
        "condition": condition.kind,
        "protocol": protocol,
        **weights,
    }
    text = f"{_summary(result, weights, protocol)}\n\n{_groups(result, model)}"
    print_result(record, text, as_json=json)


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


def _protocol(likelihood: "LikelihoodConfig") -> str:
    bits = likelihood.bits
    what = f"bits/dim of the upper {bits} bits" if bits < 8 else "bits/dim of the uint8 values"
    if likelihood.form == "compat":
        what += " by the published VDVAE's formula"
        what += ", which is no likelihood at fewer than 8" if bits < 8 else ""
    return f"{what}; {PROTOCOL}"


def _groups(result: "LikelihoodResult", model: "HVAE") -> str:
    """The KL of each latent group: one near zero has collapsed."""
    lines = ["group  latent        KL nats  share"]
    for group, (kl, shape) in enumerate(
        zip(result.kl_per_group, model.latent_shapes, strict=True), start=1
    ):
        latent = "x".join(map(str, shape))
        share = kl / result.kl if result.kl else 0.0
        lines.append(f"{group:>5}  {latent:<10} {kl:>10.3f} {share:>6.1%}")
    return "\n".join(lines)
