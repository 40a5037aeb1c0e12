"""The published VDVAE's names for our tensors, and what its tensors tell about a model.

openai/vdvae (Child, arXiv 2011.10650) stores a flat dictionary of float32 tensors. Widths, latent
and mixture counts, block counts and starting maps can be read off its shapes; resolutions of
blocks, where features are pooled and mixed, bit depth and scaling of the data cannot.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor

from hvae.errors import UserError
from hvae.models.config import ModelConfig
from hvae.models.hvae import HVAE
from hvae.models.layout import Layout

# What parts of a name become; starting maps are renamed by their place as well.
_PARTS = {
    "encoder.blocks.": "encoder.enc_blocks.",
    "decoder.blocks.": "decoder.dec_blocks.",
    ".posterior.": ".enc.",
    "decoder.out_conv": "decoder.out_net.out_conv",
}
# The published order of the parts.
_ORDER = ("encoder.in_conv", "encoder.enc_blocks", "decoder.gain", "decoder.bias",
          "decoder.dec_blocks", "decoder.bias_xs", "decoder.out_net")  # fmt: skip
# Keys whose values the published models share.
_FAMILY = ("activation", "std", "std_max", "patch", "attention", "posterior", "top_prior")
_BLOCK = re.compile(r"(encoder\.enc|decoder\.dec)_blocks\.(\d+)\.(.+)")


def published_names(model: HVAE) -> dict[str, str]:
    """Returns the published name of each tensor of a model, in the published order.

    Raises:
        UserError: if the model is not of the published family; says what it has instead.
    """
    _require_family(model.config)
    starts = sorted(map(int, model.decoder.bias_maps))
    named = {name: _published_name(name, starts) for name in model.state_dict()}
    rank = {name: _rank(published) for name, published in named.items()}
    return {name: named[name] for name in sorted(named, key=rank.__getitem__)}


def to_published(model: HVAE) -> dict[str, Tensor]:
    """Returns a model's tensors under their published names and in that order, float32.

    Raises:
        UserError: if the model is not of the published family.
    """
    state = model.state_dict()
    return {
        published: state[name].float().contiguous()
        for name, published in published_names(model).items()
    }


def load_published(model: HVAE, tensors: Mapping[str, Tensor]) -> None:
    """Loads tensors with published names into a model.

    Raises:
        UserError: if the two do not agree; says how they differ.
    """
    if problems := differences(tensors, model):
        raise UserError(f"checkpoint and layout differ: {'; '.join(problems)}")
    names = published_names(model)
    model.load_state_dict({name: tensors[published] for name, published in names.items()})


def differences(tensors: Mapping[str, Tensor], model: HVAE) -> list[str]:
    """Returns how tensors with published names differ from what a model wants, in plain words.

    The structure first; only where that agrees, single tensors.
    """
    found, wanted = Structure.of(tensors), Structure.of(to_meta(model))
    if problems := found.against(wanted):
        return problems
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    expected = {name: tuple(tensor.shape) for name, tensor in to_meta(model).items()}
    lines = [f"{name} is missing" for name in expected if name not in shapes]
    lines += [f"{name} is not part of the layout" for name in shapes if name not in expected]
    lines += [
        f"{name} is {shapes[name]}, wanted {shape}"
        for name, shape in expected.items()
        if name in shapes and shapes[name] != shape
    ]
    return _shortened(lines)


def to_meta(model: HVAE) -> dict[str, Tensor]:
    """Returns tensors without data, of the shapes that a checkpoint of the model would have."""
    state = model.state_dict()
    return {
        published: torch.empty(state[name].shape, device="meta")
        for name, published in published_names(model).items()
    }


@dataclass(frozen=True)
class BlockShape:
    """What a block's tensors tell: channels outside and inside, and the side of its kernels."""

    width: int
    inside: int
    kernel: int

    def __str__(self) -> str:
        return f"{self.width} channels, {self.inside} inside, {self.kernel}x{self.kernel}"


@dataclass(frozen=True)
class Structure:
    """What can be read off the tensors of a published checkpoint."""

    channels: int
    width: int
    z_channels: int
    mixtures: int
    encoder: tuple[BlockShape, ...]
    decoder: tuple[BlockShape, ...]
    starts: dict[int, int]
    """Width of the starting map by resolution."""

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> Self:
        """Reads the structure off tensors with published names.

        Raises:
            UserError: if these are not the tensors of a VDVAE; names what is missing.
        """
        in_conv = _shape(tensors, "encoder.in_conv.weight")
        channels = in_conv[1]
        head = _shape(tensors, "decoder.out_net.out_conv.weight")[0]
        encoder = _count(tensors, "encoder.enc_blocks")
        decoder = _count(tensors, "decoder.dec_blocks")
        starts = (
            tuple(tensor.shape)
            for name, tensor in tensors.items()
            if name.startswith("decoder.bias_xs.") and tensor.ndim == 4
        )
        return cls(
            channels=channels,
            width=in_conv[0],
            z_channels=_shape(tensors, "decoder.dec_blocks.0.z_proj.weight")[1],
            mixtures=head // (10 if channels == 3 else 3),
            encoder=tuple(_block(tensors, f"encoder.enc_blocks.{i}") for i in range(encoder)),
            decoder=tuple(
                _block(tensors, f"decoder.dec_blocks.{i}.resnet") for i in range(decoder)
            ),
            starts={shape[2]: shape[1] for shape in starts},
        )

    def against(self, wanted: "Structure") -> list[str]:
        """Returns how this structure of a checkpoint differs from the one wanted, in words."""
        lines = [
            f"it has {found} {what}, the layout {expected}"
            for what, found, expected in (
                ("image channels", self.channels, wanted.channels),
                ("channels at the finest resolution", self.width, wanted.width),
                ("latent channels", self.z_channels, wanted.z_channels),
                ("mixtures", self.mixtures, wanted.mixtures),
                ("encoder blocks", len(self.encoder), len(wanted.encoder)),
                ("decoder blocks", len(self.decoder), len(wanted.decoder)),
            )
            if found != expected
        ]
        if self.starts != wanted.starts:
            lines.append(
                f"it has starting maps at {_resolutions(self.starts)}, the layout at "
                f"{_resolutions(wanted.starts)}"
            )
        for ladder, found, expected in (
            ("encoder", self.encoder, wanted.encoder),
            ("decoder", self.decoder, wanted.decoder),
        ):
            if len(found) == len(expected):
                lines += [
                    f"{ladder} block {i} has {f}, in the layout {e}"
                    for i, (f, e) in enumerate(zip(found, expected, strict=True))
                    if f != e
                ]
        return _shortened(lines)

    def config(self, encoder: str, decoder: str) -> ModelConfig:
        """Returns the model of a layout, with everything that the tensors tell.

        Raises:
            UserError: if the layout is not one, or its blocks at one resolution differ in width.
        """
        first = re.match(r"\s*(\d+)", encoder)
        side = int(first[1]) if first else 1
        widest = max(self.encoder + self.decoder, key=lambda block: block.width)
        settings: dict[str, Any] = {
            "preset": "vdvae",
            "size": (side, side),
            "channels": self.channels,
            "encoder": encoder,
            "decoder": decoder,
            "width": self.width,
            "z_channels": self.z_channels,
            "bottleneck": widest.inside / widest.width,
            "no_bias_above": max(self.starts, default=0),
            "likelihood": {"mixtures": self.mixtures},
        }
        layout = Layout.parse(ModelConfig.model_validate(settings))
        widths: dict[int, int] = {}
        for resolutions, shapes in (
            ([block.resolution for block in layout.encoder], self.encoder),
            ([block.resolution for block in layout.decoder], self.decoder),
        ):
            # Blocks beyond the shorter of the two are reported as a difference in their number.
            for resolution, shape in zip(resolutions, shapes, strict=False):
                widths.setdefault(resolution, shape.width)
        settings["widths"] = {r: width for r, width in widths.items() if width != self.width}
        return ModelConfig.model_validate(settings)


def _require_family(config: ModelConfig) -> None:
    family = ModelConfig(preset="vdvae", encoder="1", decoder="1")
    problems = [
        f"model.{key} is {getattr(config, key)}, not {getattr(family, key)}"
        for key in _FAMILY
        if getattr(config, key) != getattr(family, key)
    ]
    likelihood = config.likelihood
    if likelihood.kind != "logistic_mixture":
        problems.append(f"model.likelihood.kind is {likelihood.kind}, not logistic_mixture")
    if config.channels not in (1, 3):
        problems.append(f"model.channels is {config.channels}, not 1 or 3")
    if config.channels != 1 and not likelihood.coupled:
        problems.append("model.likelihood.coupled is False, not True")
    if config.condition.kind != "none":
        problems.append(f"model.condition.kind is {config.condition.kind}, not none")
    if config.size is None or len(config.size) != 2 or config.size[0] != config.size[1]:
        problems.append(f"model.size is {config.size}, not a square")
    if problems:
        raise UserError(
            f"only models of the published VDVAE's family have its names: {'; '.join(problems)}"
        )


def _published_name(name: str, starts: list[int]) -> str:
    for ours, published in _PARTS.items():
        name = name.replace(ours, published)
    stem, found, resolution = name.partition("bias_maps.")
    return f"{stem}bias_xs.{starts.index(int(resolution))}" if found else name


def _rank(published: str) -> tuple[int, int]:
    """Place of a tensor's part in the published order; equal ones keep their own."""
    part = next(i for i, stem in enumerate(_ORDER) if f"{published}.".startswith(f"{stem}."))
    index = int(published.rpartition(".")[2]) if _ORDER[part] == "decoder.bias_xs" else 0
    return part, index


def _shape(tensors: Mapping[str, Tensor], name: str) -> tuple[int, ...]:
    if name not in tensors:
        some = ", ".join(list(tensors)[:3]) or "none"
        raise UserError(
            f"not a whole VDVAE checkpoint: {name} is missing; it has {len(tensors)} tensors "
            f"({some})"
        )
    tensor = tensors[name]
    if tensor.ndim != 4:
        raise UserError(f"{name}: wanted four dimensions, got {tuple(tensor.shape)}")
    return tuple(tensor.shape)


def _count(tensors: Mapping[str, Tensor], stem: str) -> int:
    """How many blocks there are, by their highest index."""
    matches = (_BLOCK.fullmatch(name) for name in tensors)
    indices = (int(m[2]) for m in matches if m and f"{m[1]}_blocks" == stem)
    return max(indices, default=-1) + 1


def _block(tensors: Mapping[str, Tensor], stem: str) -> BlockShape:
    inside, width, *_ = _shape(tensors, f"{stem}.c1.weight")
    return BlockShape(width, inside, _shape(tensors, f"{stem}.c2.weight")[2])


def _resolutions(starts: Iterable[int]) -> str:
    return ", ".join(map(str, sorted(starts))) or "none"


def _shortened(lines: list[str], shown: int = 5) -> list[str]:
    return lines if len(lines) <= shown else [*lines[:shown], f"and {len(lines) - shown} more"]
