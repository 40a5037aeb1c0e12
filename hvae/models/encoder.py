"""The bottom-up network: features of the data at every resolution."""

from collections.abc import Mapping

from torch import Tensor, nn

from hvae.errors import UserError
from hvae.models.config import ModelConfig
from hvae.models.layout import Layout
from hvae.models.recompute import Level, recomputed, runs
from hvae.nn.attention import SelfAttention
from hvae.nn.block import Bottleneck
from hvae.nn.conv import conv
from hvae.nn.resample import average_pool, fit_channels, patchify


class Encoder(nn.Module):
    """Residual blocks from fine to coarse; the last output at each resolution is its feature map.

    Pooling follows the residual sum, and a wider level is filled up with zero channels, so that
    the ladder has no weights outside its blocks (VDVAE, arXiv 2011.10650).
    """

    def __init__(self, config: ModelConfig, layout: Layout, channels: int) -> None:
        super().__init__()
        ndim = len(layout.finest_shape)
        self.patch, self.finest, self.layout = config.patch, layout.finest, layout.encoder
        self.widths = {r: config.width_at(r) for r in [b.output_resolution for b in layout.encoder]}
        self.resolutions = {block.resolution for block in layout.encoder}
        self.levels: Mapping[int, Level] = {}  # what the backward computes again, by resolution
        self.in_conv = conv(ndim, channels * config.patch**ndim, config.width, kernel=3)
        self.blocks = nn.ModuleList()
        self.attention = nn.ModuleDict()  # by index of the block it follows
        for index, spec in enumerate(layout.encoder):
            block = residual_block(config, ndim, spec.resolution)
            block.scale_tail(residual_scale(config, len(layout.encoder)))
            self.blocks.append(block)
            if attention := attention_at(config, ndim, spec.resolution):
                self.attention[str(index)] = attention

    def forward(self, x: Tensor) -> dict[int, Tensor]:
        """Returns features (N, width, *S) by resolution, from scaled data (N, C, *S)."""
        x = self.in_conv(patchify(x, self.patch))
        features = {self.finest: x}
        # What enters a pooling block is a feature map too, and must come out of a run.
        cuts = {i for i, spec in enumerate(self.layout) if spec.pool > 1}
        for blocks in runs([spec.resolution for spec in self.layout], self.levels, cuts):
            level = self.levels.get(self.layout[blocks.start].resolution, "none")
            x = recomputed(level, self._ascend, x, blocks)
            features[self.layout[blocks[-1]].output_resolution] = x
        return features

    def _ascend(self, x: Tensor, blocks: range) -> Tensor:
        """Returns what adjacent blocks make of their input."""
        for index in blocks:
            spec = self.layout[index]
            x = x + self.blocks[index](x)
            if str(index) in self.attention:
                x = x + self.attention[str(index)](x)
            x = average_pool(x, spec.pool)
            x = fit_channels(x, self.widths[spec.output_resolution])
        return x


def residual_block(config: ModelConfig, ndim: int, resolution: int) -> Bottleneck:
    """Returns the bottleneck that keeps the width of a resolution."""
    width = config.width_at(resolution)
    return bottleneck(config, ndim, resolution, width, width)


def residual_scale(config: ModelConfig, blocks: int) -> float:
    """Returns what the tails of residual branches are scaled by at the start.

    1 / sqrt(blocks) makes the variance of the stream independent of depth (VDVAE).
    """
    return 0.0 if config.init == "zero_tail" else blocks**-0.5


def attention_at(config: ModelConfig, ndim: int, resolution: int) -> SelfAttention | None:
    """Returns the self-attention of a block at a resolution, if it has any.

    Raises:
        UserError: if the heads do not divide its channels.
    """
    if resolution not in config.attention:
        return None
    width = config.width_at(resolution)
    if width % config.heads:
        raise UserError(
            f"model.heads: {config.heads} heads do not divide the {width} channels at resolution "
            f"{resolution}"
        )
    return SelfAttention(ndim, width, config.heads)


def bottleneck(
    config: ModelConfig,
    ndim: int,
    resolution: int,
    channels: int,
    out: int,
    *,
    fp32_tail: bool = False,
) -> Bottleneck:
    """Returns a bottleneck at a resolution; 3x3 convolutions only where maps exceed 2 pixels."""
    return Bottleneck(
        ndim,
        (channels, max(1, int(config.width_at(resolution) * config.bottleneck)), out),
        kernel=3 if resolution > 2 else 1,
        activation=config.activation,
        fp32_tail=fp32_tail,
    )
