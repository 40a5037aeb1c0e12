"""One call of an op, to be checked or timed: its inputs, and how the public function takes them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from hvae import ops
from hvae.ops.logistic_mixture import num_parameters

Inputs = Mapping[str, Tensor]

# Of means and raw stds: wide enough to matter, narrow enough for gradients to fit in float16.
_SPREAD = 0.6


@dataclass(frozen=True)
class OpCase:
    """A call of an op.

    Attributes:
        label: names the case in test ids and failures.
        call: the public function on `inputs`; returns its tensors, without absent ones.
        inputs: by name. Integer tensors (noise states, levels) keep their dtype in `prepared`.
        differentiable: the inputs that gradients are taken for.
        gradient_roundings: how often the gradients are rounded to their dtype.
    """

    label: str
    call: Callable[[Inputs], tuple[Tensor, ...]]
    inputs: Inputs
    differentiable: tuple[str, ...]
    gradient_roundings: int = 1

    def prepared(
        self, dtype: torch.dtype, layout: str = "contiguous", device: str = "cpu"
    ) -> "OpCase":
        """The case with its floating inputs in `dtype` and a layout of `LAYOUTS`, on `device`."""

        def prepare(tensor: Tensor) -> Tensor:
            if not tensor.is_floating_point():
                return tensor.to(device)
            return LAYOUTS[layout](tensor.to(device, dtype))

        inputs = {name: prepare(tensor) for name, tensor in self.inputs.items()}
        return replace(self, inputs=inputs)

    def run(self, cotangents: Sequence[Tensor] | None = None) -> "OpResult":
        """Outputs, and the gradients of sum(output * cotangent); random cotangents by default."""
        inputs = {
            name: tensor.detach().requires_grad_(name in self.differentiable)
            for name, tensor in self.inputs.items()
        }
        outputs = self.call(inputs)
        if not self.differentiable:
            return OpResult(outputs, {}, ())
        if cotangents is None:
            cotangents = [
                _normal(output.shape, output.dtype).to(output.device) for output in outputs
            ]
        wanted = [inputs[name] for name in self.differentiable]
        gradients = torch.autograd.grad(outputs, wanted, grad_outputs=list(cotangents))
        return OpResult(
            tuple(output.detach() for output in outputs),
            dict(zip(self.differentiable, gradients, strict=True)),
            tuple(cotangents),
        )


@dataclass(frozen=True)
class OpResult:
    """Outputs of a case, its gradients by input name, and the cotangents they belong to."""

    outputs: tuple[Tensor, ...]
    gradients: Mapping[str, Tensor]
    cotangents: tuple[Tensor, ...]


def gaussian_latent_case(
    batch: int,
    z_channels: int,
    space: Sequence[int],
    *,
    width: int = 0,
    residual: bool = False,
    given_noise: bool = False,
    seed: int = 0,
    **options: Any,
) -> OpCase:
    """A `gaussian_latent` on normal q, p, x; `width` channels h, `options` for the function."""
    generator = torch.Generator().manual_seed(seed)
    inputs = {
        "q": _SPREAD * _normal((batch, 2 * z_channels, *space), generator=generator),
        "p": _SPREAD * _normal((batch, 2 * z_channels + width, *space), generator=generator),
        "rng": ops.make_rng(seed, first_sample=5),
    }
    if residual:
        inputs["x"] = _normal((batch, width, *space), generator=generator)
    if given_noise:
        inputs["eps"] = _normal((batch, z_channels, *space), generator=generator)

    def call(inputs: Inputs) -> tuple[Tensor, ...]:
        arguments: dict[str, Any] = {**inputs, **options}
        z, kl, y = ops.gaussian_latent(**arguments, stream=3)
        return (z, kl) if y is None else (z, kl, y)

    label = _label(batch, z_channels, space, width, residual, given_noise, options)
    return OpCase(label, call, inputs, ("q", "p", "x") if residual else ("q", "p"))


def gaussian_sample_case(
    batch: int,
    z_channels: int,
    space: Sequence[int],
    *,
    width: int = 0,
    given_noise: bool = False,
    seed: int = 0,
    **options: Any,
) -> OpCase:
    """A `gaussian_sample` on normal p with `width` further channels."""
    generator = torch.Generator().manual_seed(seed)
    inputs = {
        "p": _SPREAD * _normal((batch, 2 * z_channels + width, *space), generator=generator),
        "rng": ops.make_rng(seed, first_sample=5),
    }
    if given_noise:
        inputs["eps"] = _normal((batch, z_channels, *space), generator=generator)

    def call(inputs: Inputs) -> tuple[Tensor, ...]:
        arguments: dict[str, Any] = {**inputs, **options}
        return (ops.gaussian_sample(**arguments, z_channels=z_channels, stream=3),)

    label = _label(batch, z_channels, space, width, False, given_noise, options)
    return OpCase(label, call, inputs, ("p",))


def logistic_mixture_nll_case(
    batch: int,
    colours: int,
    space: Sequence[int],
    *,
    mixtures: int = 3,
    seed: int = 0,
    **options: Any,
) -> OpCase:
    """A `logistic_mixture_nll` of levels over the whole range, both end levels among them."""
    generator = torch.Generator().manual_seed(seed)
    last = 2 ** options.get("bits", 8) - 1
    x = torch.randint(last + 1, (batch, colours, *space), generator=generator)
    x[..., 0], x[..., -1] = 0, last
    params = mixture_params(batch, colours, space, mixtures, generator=generator)

    def call(inputs: Inputs) -> tuple[Tensor, ...]:
        return (ops.logistic_mixture_nll(inputs["params"], inputs["x"], **options),)

    label = _mixture_label(batch, colours, space, mixtures, options)
    # Once where the forward pass computes them, and once where the backward scales them.
    return OpCase(label, call, {"params": params, "x": x}, ("params",), gradient_roundings=2)


def logistic_mixture_sample_case(
    batch: int,
    colours: int,
    space: Sequence[int],
    *,
    mixtures: int = 3,
    seed: int = 0,
    **options: Any,
) -> OpCase:
    """A `logistic_mixture_sample`, whose result is integer and has no gradient."""
    generator = torch.Generator().manual_seed(seed)
    inputs = {
        "params": mixture_params(batch, colours, space, mixtures, generator=generator),
        "rng": ops.make_rng(seed, first_sample=5),
    }

    def call(inputs: Inputs) -> tuple[Tensor, ...]:
        arguments: dict[str, Any] = {**inputs, **options}
        return (ops.logistic_mixture_sample(**arguments, colours=colours, stream=3),)

    return OpCase(_mixture_label(batch, colours, space, mixtures, options), call, inputs, ())


def mixture_params(
    batch: int,
    colours: int,
    space: Sequence[int],
    mixtures: int,
    *,
    log_scale: float = -2.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Head outputs (N, P, *S) with means across the levels and scales around exp(`log_scale`)."""
    shape = (batch, num_parameters(colours, mixtures), *space)
    params = _normal(shape, generator=generator)
    slots = 3 if colours == 3 else 2
    params[:, mixtures:].unflatten(1, (colours, slots, mixtures))[:, :, 1] += log_scale
    return params


def _mixture_label(
    batch: int, colours: int, space: Sequence[int], mixtures: int, options: Mapping[str, Any]
) -> str:
    shape = "x".join(map(str, (batch, colours, *space)))
    return "-".join([shape, f"m{mixtures}", *(f"{name}={v}" for name, v in options.items())])


def _channels_last(tensor: Tensor) -> Tensor:
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    return tensor.contiguous(memory_format=formats.get(tensor.dim(), torch.contiguous_format))


def _strided(tensor: Tensor) -> Tensor:
    """Every second element of the last dimension of a larger tensor, NaN between them."""
    larger = tensor.new_full((*tensor.shape[:-1], 2 * tensor.shape[-1]), float("nan"))
    larger[..., ::2] = tensor
    return larger[..., ::2]


def _channel_block(tensor: Tensor) -> Tensor:
    """A block of the channels of a larger tensor, NaN around it."""
    batch, channels, *space = tensor.shape
    larger = tensor.new_full((batch, channels + 3, *space), float("nan"))
    larger[:, 1:-2] = tensor
    return larger[:, 1:-2]


LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "contiguous": Tensor.contiguous,
    "channels_last": _channels_last,
    "strided": _strided,
    "channel_block": _channel_block,
    "channels_last_block": lambda tensor: _channel_block(_channels_last(tensor)),
}


def _normal(
    shape: Sequence[int],
    dtype: torch.dtype = torch.float32,
    generator: torch.Generator | None = None,
) -> Tensor:
    return torch.randn(*shape, generator=generator).to(dtype)


def _label(
    batch: int,
    z_channels: int,
    space: Sequence[int],
    width: int,
    residual: bool,
    given_noise: bool,
    options: Mapping[str, Any],
) -> str:
    parts = ["x".join(map(str, (batch, z_channels, *space)))]
    parts += [f"h{width}"] * (width > 0) + ["x"] * residual + ["eps"] * given_noise
    return "-".join([*parts, *(f"{name}={value}" for name, value in options.items())])
