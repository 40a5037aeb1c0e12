"""A training step of this package against the published VDVAE in plain PyTorch, interleaved.

python benchmarks/bench_published_baseline.py --threads 1 2 --rounds 9 --save benchmarks/results

The baseline is what arXiv 2011.10650 describes, written plainly: eager, channels-first, a
concatenation before the posterior, a non-linearity before each convolution, reparameterisation, KL
and likelihood out of tensor operations, noise from the global generator, AdamW and the average as
loops over parameters. Both sides get the same weights and, for a check before anything is timed,
the same noise and the same form of the likelihood. Ours is timed as the configuration runs it, and
with everything recomputed that `pointwise` does.
"""

import argparse
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from hvae.bench.device import model_meter
from hvae.bench.machine import machine
from hvae.bench.measure import Quantiles
from hvae.bench.report import keep
from hvae.distributions.compat_mixture import compat_nll
from hvae.models import HVAE, ModelConfig
from hvae.models.layout import Layout
from hvae.models.recompute import Level, Recompute
from hvae.models.vdvae import to_published
from hvae.training import load_config
from hvae.training.build import complete
from hvae.training.step import Stepper

SETTINGS: dict[str, Level] = {"hvae": "none", "hvae, pointwise": "pointwise"}


class Block(nn.Module):
    """Four convolutions, each after a GELU."""

    def __init__(self, outside: int, inside: int, out: int, kernel: int) -> None:
        super().__init__()
        self.c1 = nn.Conv2d(outside, inside, 1)
        self.c2 = nn.Conv2d(inside, inside, kernel, padding=kernel // 2)
        self.c3 = nn.Conv2d(inside, inside, kernel, padding=kernel // 2)
        self.c4 = nn.Conv2d(inside, out, 1)

    def forward(self, x: Tensor) -> Tensor:
        for conv in (self.c1, self.c2, self.c3, self.c4):
            x = conv(F.gelu(x))
        return x


class Group(nn.Module):
    """Posterior, prior, projection and residual block of one latent group."""

    def __init__(self, width: int, inside: int, z_channels: int, kernel: int) -> None:
        super().__init__()
        self.z_channels = z_channels
        self.enc = Block(2 * width, inside, 2 * z_channels, kernel)
        self.prior = Block(width, inside, 2 * z_channels + width, kernel)
        self.z_proj = nn.Conv2d(z_channels, width, 1)
        self.resnet = Block(width, inside, width, kernel)

    def forward(self, x: Tensor, feature: Tensor, eps: Tensor | None) -> tuple[Tensor, Tensor]:
        z_channels = self.z_channels
        mean_q, log_q = self.enc(torch.cat([x, feature], 1)).chunk(2, 1)
        prior = self.prior(x)
        mean_p, log_p = prior[:, :z_channels], prior[:, z_channels : 2 * z_channels]
        x = x + prior[:, 2 * z_channels :]
        z = mean_q + log_q.exp() * (torch.randn_like(mean_q) if eps is None else eps)
        kl = (
            log_p - log_q - 0.5
            + 0.5 * (log_q.exp() ** 2 + (mean_q - mean_p) ** 2) / log_p.exp() ** 2
        )  # fmt: skip
        x = x + self.z_proj(z)
        return x + self.resnet(x), kl.sum((1, 2, 3))


class Published(nn.Module):
    """The published model; its tensors have the published names."""

    def __init__(self, config: ModelConfig, mixtures: int) -> None:
        super().__init__()
        self.config, self.layout = config, Layout.parse(config)

        def shape(resolution: int) -> tuple[int, int, int]:
            width = config.width_at(resolution)
            return width, int(width * config.bottleneck), 3 if resolution > 2 else 1

        self.encoder, self.decoder = nn.Module(), nn.Module()
        self.encoder.in_conv = nn.Conv2d(3, config.width, 3, padding=1)
        self.encoder.enc_blocks = nn.ModuleList()
        for spec in self.layout.encoder:
            width, inside, kernel = shape(spec.resolution)
            self.encoder.enc_blocks.append(Block(width, inside, width, kernel))
        self.decoder.dec_blocks = nn.ModuleList()
        for group in self.layout.decoder:
            width, inside, kernel = shape(group.resolution)
            self.decoder.dec_blocks.append(Group(width, inside, config.z_channels, kernel))
        starts = sorted({g.resolution for g in self.layout.decoder})
        self.starts = [r for r in starts if r <= config.no_bias_above]
        self.decoder.bias_xs = nn.ParameterList(
            torch.zeros(1, config.width_at(r), r, r) for r in self.starts
        )
        self.decoder.gain = nn.Parameter(torch.ones(1, config.width, 1, 1))
        self.decoder.bias = nn.Parameter(torch.zeros(1, config.width, 1, 1))
        self.decoder.out_net = nn.Module()
        self.decoder.out_net.out_conv = nn.Conv2d(config.width, 10 * mixtures, 1)

    def forward(self, x: Tensor, eps: Sequence[Tensor] | None = None) -> tuple[Tensor, Tensor]:
        """Returns -ln p(x | z) and the KL of (N, 3, R, R) uint8, nats (N,) each."""
        likelihood, config = self.config.likelihood, self.config
        h = self.encoder.in_conv((x.float() - likelihood.input_mean) / likelihood.input_std)
        features = {self.layout.finest: h}
        for spec, block in zip(self.layout.encoder, self.encoder.enc_blocks, strict=True):
            h = h + block(h)
            if spec.pool > 1:
                h = F.avg_pool2d(h, spec.pool)
            missing = config.width_at(spec.output_resolution) - h.shape[1]
            if missing > 0:
                h = F.pad(h, (0, 0, 0, 0, 0, missing))
            features[spec.output_resolution] = h
        states = {
            r: start.expand(len(x), -1, -1, -1)
            for r, start in zip(self.starts, self.decoder.bias_xs, strict=True)
        }
        total = torch.zeros(len(x))
        for index, (spec, group) in enumerate(
            zip(self.layout.decoder, self.decoder.dec_blocks, strict=True)
        ):
            feature = features[spec.resolution]
            h = states.get(spec.resolution, torch.zeros_like(feature))
            if spec.mix_from is not None:
                coarse = states[spec.mix_from][:, : h.shape[1]]
                h = h + F.interpolate(coarse, scale_factor=spec.resolution // spec.mix_from)
            h, kl = group(h, feature, None if eps is None else eps[index])
            states[spec.resolution] = h
            total = total + kl
        out = states[self.layout.finest] * self.decoder.gain + self.decoder.bias
        return compat_nll(self.decoder.out_net.out_conv(out), x), total


def baseline_step(model: Published, x: Tensor, lr: float) -> Callable[[], object]:
    """A call that takes one step as published."""
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=lr, betas=(0.9, 0.9), weight_decay=0.01, foreach=False
    )
    average = [parameter.detach().clone() for parameter in model.parameters()]

    def step() -> object:
        nll, kl = model(x)
        ((nll + kl) / x[0].numel()).mean().backward()
        nn.utils.clip_grad_norm_(model.parameters(), 200.0, foreach=False)
        optimizer.step()
        with torch.no_grad():
            for mean, parameter in zip(average, model.parameters(), strict=True):
                mean.mul_(0.9999).add_(parameter, alpha=0.0001)
        optimizer.zero_grad()
        return None

    return step


def check(ours: HVAE, theirs: Published, x: Tensor) -> None:
    """Refuses to time two models that do not compute the same."""
    eps = [torch.randn(len(x), *shape) for shape in ours.latent_shapes]
    with torch.no_grad():
        elbo, (nll, kl) = ours(x, eps=eps), theirs(x, eps)
    torch.testing.assert_close(kl, elbo.kl.sum(1), rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(nll, elbo.nll, rtol=1e-2, atol=0)  # exact form against compat


def share_by_kind(step: Callable[[], object]) -> dict[str, float]:
    """Shares of a step's operator time, by kind of operation."""
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        step()
    kinds: dict[str, float] = {}
    for event in profiler.key_averages():
        kind = next((k for k, names in KINDS.items() if any(n in event.key for n in names)), "rest")
        kinds[kind] = kinds.get(kind, 0.0) + event.self_cpu_time_total
    total = sum(kinds.values())
    return {kind: value / total for kind, value in sorted(kinds.items(), key=lambda kv: -kv[1])}


KINDS = {
    "convolutions": ("conv", "mkldnn"),
    "non-linearities": ("gelu",),
    "latents and likelihood": ("hvae::", "exp", "softplus", "sigmoid", "logsumexp", "tanh"),
    "copies": ("copy", "cat", "clone", "contiguous", "pad"),
    "optimiser": ("_foreach", "lerp", "addcmul", "addcdiv", "sqrt", "norm"),
    "sums and products": ("add", "mul", "sub", "div", "sum"),
}


def measure(config_name: str, batch: int, threads: int, rounds: int) -> dict[str, Any]:
    """Times of all variants on a number of threads."""
    torch.set_num_threads(threads)
    config = complete(load_config(config_name, ["train.precision=fp32"]))
    model_config = config.model
    torch.manual_seed(0)
    models = {name: HVAE(model_config) for name in SETTINGS}
    theirs = Published(model_config, config.model.likelihood.mixtures)
    x = torch.randint(256, (batch, *models["hvae"].shape), dtype=torch.uint8)
    theirs.load_state_dict(to_published(models["hvae"]))
    check(models["hvae"], theirs, x)
    calls = {"plain PyTorch": baseline_step(theirs, x, config.train.lr)}
    for name, level in SETTINGS.items():
        model = models[name]
        encoder = dict.fromkeys(model.encoder.resolutions, level)
        model.recompute(Recompute(encoder, dict.fromkeys(model.decoder.resolutions, level)))
        stepper = Stepper(model, config.train, 0)
        calls[name] = lambda stepper=stepper: stepper.step(x)
    times: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()
    for _ in range(rounds):
        for name, call in calls.items():
            began = time.process_time() if threads == 1 else time.perf_counter()
            call()
            ended = time.process_time() if threads == 1 else time.perf_counter()
            times[name].append(ended - began)
    plain = times["plain PyTorch"]
    return {
        name: {
            "step_ms": 1000 * Quantiles.of(values).p50,
            "images_per_second": batch / Quantiles.of(values).p50,
            "speed_up": Quantiles.of([a / b for a, b in zip(plain, values, strict=True)]).p50,
            "shares": share_by_kind(calls[name]),
        }
        for name, values in times.items()
    }


def table(found: Mapping[int, Mapping[str, Any]], where: Mapping[str, Any], head: str) -> str:
    """The figures as Markdown."""
    lines = [f"# Training step against plain PyTorch: {head}", ""]
    lines += [f"{where['cpu']}, torch {torch.__version__}, {where['commit']}, {where['date']}", ""]
    lines += ["CPU time on one thread, wall time on more; ratios within rounds, medians.", ""]
    lines += ["| threads | variant | step ms | images/s | speed-up | where the time goes |"]
    lines += ["|" + " --- |" * 6]
    for threads, rows in found.items():
        for name, row in rows.items():
            shares = ", ".join(f"{k} {v:.0%}" for k, v in row["shares"].items() if v >= 0.02)
            lines.append(
                f"| {threads} | {name} | {row['step_ms']:.0f} | {row['images_per_second']:.2f} | "
                f"{row['speed_up']:.2f} | {shares} |"
            )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="A training step against plain PyTorch")
    parser.add_argument("--config", default="vdvae/cifar10")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--threads", type=int, nargs="+", default=[1])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--save", type=Path, metavar="FOLDER")
    args = parser.parse_args(arguments)
    try:
        found = {t: measure(args.config, args.batch, t, args.rounds) for t in args.threads}
    except AssertionError as error:
        sys.exit(f"no figures, the two models differ: {error}")
    where = machine(model_meter("cpu"))
    text = table(found, where, f"{args.config}, batch {args.batch}, float32")
    print(text)
    if args.save:
        record = {"machine": where, "config": args.config, "batch": args.batch, "threads": found}
        keep(record, text, "published_baseline", args.save)


if __name__ == "__main__":
    main()
