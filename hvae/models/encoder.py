"""The bottom-up network: features of the data at every resolution."""

from torch import Tensor, nn

from hvae.models.config import ModelConfig
from hvae.models.layout import Layout
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
        self.in_conv = conv(ndim, channels * config.patch**ndim, config.width, kernel=3)
        self.blocks = nn.ModuleList()
        for spec in layout.encoder:
            block = residual_block(config, ndim, spec.resolution)
            block.scale_tail(len(layout.encoder) ** -0.5)  # variance independent of depth
            self.blocks.append(block)

    def forward(self, x: Tensor) -> dict[int, Tensor]:
        """Returns features (N, width, *S) by resolution, from scaled data (N, C, *S)."""
        x = self.in_conv(patchify(x, self.patch))
        features = {self.finest: x}
        for spec, block in zip(self.layout, self.blocks, strict=True):
            x = average_pool(x + block(x), spec.pool)
            x = fit_channels(x, self.widths[spec.output_resolution])
            features[spec.output_resolution] = x
        return features


def residual_block(config: ModelConfig, ndim: int, resolution: int) -> Bottleneck:
    """Returns the bottleneck that keeps the width of a resolution."""
    width = config.width_at(resolution)
    return bottleneck(config, ndim, resolution, width, width)


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
