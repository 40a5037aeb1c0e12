"""The layout grammar: which blocks stand at which resolution, in what order.

Comma-separated tokens, left to right, as in VDVAE (Child, arXiv 2011.10650):

    token   encoder                                       decoder
    RxN     N blocks at resolution R                      N blocks at resolution R
    R       one block                                     one block
    RdK     one block at R, then K-fold average pooling   -
    RmS     -                                             one block at R that first adds the state
                                                          of resolution S, upsampled R / S times

A resolution names a level by the shorter side of its maps; the finest is the shorter side of the
data over `patch`. Level R is the finest level scaled by R / finest along every axis, so data of
any height and width fits as long as those divisions come out even.
"""

import re
from dataclasses import dataclass
from typing import Self

from hvae.errors import UserError
from hvae.models.config import ModelConfig

_TOKEN = re.compile(r"(?P<resolution>\d+)(?:(?P<kind>[xdm])(?P<argument>\d+))?")
_MOST_DIGITS = 5  # a damaged or hostile file must not ask for a billion blocks
_FORMS = {
    "model.encoder": "R, RxN or RdK, as in 32x11,32d2,16x6",
    "model.decoder": "R, RxN or RmS, as in 1x1,4m1,4x2",
}


@dataclass(frozen=True)
class EncoderBlock:
    """A residual block at `resolution`, followed by `pool`-fold average pooling (1: none)."""

    resolution: int
    pool: int = 1

    @property
    def output_resolution(self) -> int:
        """Resolution of the block's result."""
        return self.resolution // self.pool


@dataclass(frozen=True)
class DecoderBlock:
    """A latent group at `resolution`, which first adds the state of `mix_from` if that is set."""

    resolution: int
    mix_from: int | None = None


@dataclass(frozen=True)
class Layout:
    """Both ladders of a model and the spatial shape of each of their levels."""

    encoder: tuple[EncoderBlock, ...]
    decoder: tuple[DecoderBlock, ...]
    finest_shape: tuple[int, ...]

    @classmethod
    def parse(cls, config: ModelConfig) -> Self:
        """Returns the checked layout of a model whose `size` is set.

        Raises:
            UserError: naming the string, the token, its column and what was wanted there.
        """
        if config.size is None:
            raise UserError("model.size is not set; give it, or data.size in a configuration file")
        if any(side % config.patch for side in config.size):
            raise UserError(f"model.size {config.size} is not divisible by patch {config.patch}")
        finest_shape = tuple(side // config.patch for side in config.size)
        encoder = _parse_encoder(config.encoder, finest_shape)
        features = {min(finest_shape)} | {block.output_resolution for block in encoder}
        decoder = _parse_decoder(config.decoder, features, min(finest_shape))
        if unknown := sorted(set(config.attention) - features):
            raise UserError(
                f"model.attention: no level has resolution {unknown[0]}; the levels are "
                f"{', '.join(map(str, sorted(features)))}"
            )
        return cls(encoder, decoder, finest_shape)

    @property
    def finest(self) -> int:
        """The finest resolution."""
        return min(self.finest_shape)

    def shape_at(self, resolution: int) -> tuple[int, ...]:
        """Returns the spatial shape of the maps at a resolution."""
        return tuple(side * resolution // self.finest for side in self.finest_shape)


@dataclass(frozen=True)
class _Token:
    """One token and where it stands, to say so in errors."""

    field: str
    text: str
    column: int

    @property
    def numbers(self) -> tuple[int, str, int]:
        """Resolution, kind and argument; a plain `R` reads as `Rx1`."""
        match = _TOKEN.fullmatch(self.text)
        if not match:
            raise self.error(f"wanted {_FORMS[self.field]}")
        if len(match["resolution"]) > _MOST_DIGITS or len(match["argument"] or "") > _MOST_DIGITS:
            raise self.error(f"wanted numbers of at most {_MOST_DIGITS} digits")
        resolution, argument = int(match["resolution"]), int(match["argument"] or 1)
        if min(resolution, argument) < 1:
            raise self.error("wanted numbers of at least 1")
        return resolution, match["kind"] or "x", argument

    def error(self, reason: str) -> UserError:
        return UserError(f'{self.field}: "{self.text}" at column {self.column}: {reason}')


def _tokens(field: str, text: str) -> list[_Token]:
    tokens, column = [], 1
    for part in text.split(","):
        indent = len(part) - len(part.lstrip())
        tokens.append(_Token(field, part.strip(), column + indent))
        column += len(part) + 1
    return tokens


def _parse_encoder(text: str, finest_shape: tuple[int, ...]) -> tuple[EncoderBlock, ...]:
    shape = finest_shape
    blocks: list[EncoderBlock] = []
    for token in _tokens("model.encoder", text):
        resolution, kind, argument = token.numbers
        if resolution != min(shape):
            raise token.error(f"the maps are at resolution {min(shape)} here ({_by(shape)})")
        if kind == "x":
            blocks += [EncoderBlock(resolution)] * argument
        elif kind != "d":
            raise token.error(f"wanted {_FORMS[token.field]}")
        elif any(side % argument for side in shape):
            raise token.error(f"maps of {_by(shape)} cannot be pooled {argument}-fold")
        else:
            blocks.append(EncoderBlock(resolution, argument))
            shape = tuple(side // argument for side in shape)
    return tuple(blocks)


def _parse_decoder(text: str, features: set[int], finest: int) -> tuple[DecoderBlock, ...]:
    known = ", ".join(map(str, sorted(features)))
    reached: set[int] = set()
    blocks: list[DecoderBlock] = []
    for token in _tokens("model.decoder", text):
        resolution, kind, argument = token.numbers
        if resolution not in features:
            raise token.error(f"the encoder has no level {resolution}; it has {known}")
        if kind == "x":
            blocks += [DecoderBlock(resolution)] * argument
        elif kind != "m":
            raise token.error(f"wanted {_FORMS[token.field]}")
        elif argument not in reached:
            raise token.error(f"no block before it stands at resolution {argument}")
        elif argument >= resolution or resolution % argument:
            raise token.error(f"{argument} is not a coarser divisor of {resolution}")
        else:
            blocks.append(DecoderBlock(resolution, argument))
        reached.add(resolution)
    if finest not in reached:
        raise UserError(
            f'model.decoder: "{text}" never reaches resolution {finest}, the finest level '
            "(the shorter side of the data over model.patch)"
        )
    return tuple(blocks)


def _by(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
