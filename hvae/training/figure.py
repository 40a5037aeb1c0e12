"""Draws the curves of runs: scores, gradients, schedules, throughput, KL of every group."""

import importlib.util
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hvae.errors import UserError
from hvae.training.curves import Curves, Number

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import SubFigure

SUFFIXES = (".png", ".pdf", ".svg")

# Okabe & Ito's colours, told apart with any kind of colour vision; vermilion is kept for alarms.
_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#000000")
_ALARM = "#D55E00"
_GREY = "#5f5f5f"
_STYLE = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelcolor": _GREY,
    "axes.edgecolor": "#b0b0b0",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.formatter.useoffset": False,
    "axes.prop_cycle": f"cycler('color', {list(_COLOURS)})",
    "grid.color": "#e8e8e8",
    "xtick.color": _GREY,
    "ytick.color": _GREY,
    "legend.edgecolor": "none",
    "legend.framealpha": 0.85,
    "legend.fontsize": 8,
    "lines.linewidth": 1.4,
    "svg.fonttype": "none",
}
_IMAGES = "images seen"
# KL below it, in nats per image, is that of a collapsed group.
_LEAST_KL = 1e-3


def can_draw() -> bool:
    """Returns whether matplotlib is installed."""
    return importlib.util.find_spec("matplotlib") is not None


def draw_curves(runs: Sequence[Curves], file: Path) -> None:
    """Draws one figure of one or more runs into a file.

    Raises:
        UserError: if matplotlib is missing, or the file's name does not end in .png, .pdf or .svg.
        OSError: if the file cannot be written.
    """
    if file.suffix.lower() not in SUFFIXES:
        raise UserError(f"wanted a file that ends in {', '.join(SUFFIXES)}, got {file}")
    if not can_draw():
        raise UserError(
            "figures need matplotlib: pip install 'hvae[plot]' (--json prints the points without)"
        )
    import matplotlib as mpl
    from matplotlib.figure import Figure

    maps = [run for run in runs if run.num_groups]
    map_rows = len(maps) if len(maps) < 2 else (len(maps) + 1) // 2
    heights = [6.8, 3.1 * map_rows]
    with mpl.rc_context(_STYLE):
        # Without pyplot: no window, no state that a program around this one could share.
        figure = Figure(figsize=(12, sum(heights)), dpi=110, layout="constrained")
        # The legend of the maps' colours must not narrow the plots above.
        heights = heights if maps else heights[:1]
        parts = figure.subfigures(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0]
        _draw_lines(parts[0], runs)
        if maps:
            _draw_maps(parts[1], maps)
        file.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(file)


def _draw_lines(part: "SubFigure", runs: Sequence[Curves]) -> None:
    part.suptitle(", ".join(run.name for run in runs), x=0.01, ha="left", weight="bold")
    grid = part.add_gridspec(2, 12, height_ratios=[1.25, 1])
    _bits_per_dim(part.add_subplot(grid[0, :6]), runs)
    _gradients(part.add_subplot(grid[0, 6:]), runs)
    compared = any(run.fid for run in runs)
    width = 3 if compared else 4
    below = [part.add_subplot(grid[1, at : at + width]) for at in range(0, 12, width)]
    _schedule(below[0], runs, "lr", "learning rate", "per step")
    _schedule(below[1], runs, "beta", "weight of the KL", "beta")
    _throughput(below[2], runs)
    if compared:
        _sample_quality(below[3], runs)
    for axes in part.axes:
        _mark_alarms(axes, runs)
        axes.set_xlim(left=0)
        axes.set_xlabel(_IMAGES)
        _thousands(axes)


def _bits_per_dim(axes: "Axes", runs: Sequence[Curves]) -> None:
    shown: list[NDArray[np.float64]] = []
    _key(axes, runs, "train, mean since the last row", alpha=0.55, linewidth=1)
    for run, colour in _coloured(runs):
        train, test = _array(run.train["bits_per_dim"]), _array(run.test_bits_per_dim)
        _line(axes, run.images, train, colour, alpha=0.55, linewidth=1)
        if len(test):
            label = _test_label(run, named=len(runs) > 1)
            axes.plot(run.test_images, test, color=colour, marker="o", markersize=4, label=label)
        shown += [train, test]
    axes.set(title="bits per dimension (ELBO)", ylabel="bits/dim")
    _limit_to_most(axes, np.concatenate(shown))


def _test_label(run: Curves, *, named: bool) -> str:
    fewest, most = min(run.test_counts), max(run.test_counts)
    count = f"{most:,}" if fewest == most else f"{fewest:,} to {most:,}"
    score = run.test_bits_per_dim[-1]
    name = f"{run.name}: " if named else ""
    return f"{name}{run.test_set}, {count} images" + ("" if score is None else f": {score:.3f}")


def _gradients(axes: "Axes", runs: Sequence[Curves]) -> None:
    threshold = {"linestyle": (0, (4, 2)), "alpha": 0.7, "linewidth": 1}
    _key(axes, runs, "mean norm")
    _key(axes, runs, "norm that is clipped to", **threshold)
    if any(share for run in runs for share in run.train["skipped"]):
        _key(axes, runs, "steps were skipped", marker="x", linestyle="none", markersize=5)
    positive = False
    for run, colour in _coloured(runs):
        norm, images = _array(run.train["grad_norm"]), np.array(run.images)
        _line(axes, images, norm, colour)
        _line(axes, images, _array(run.train["clip_norm"]), colour, **threshold)
        skipped = images[_array(run.train["skipped"]) > 0]
        floor = np.full(len(skipped), 0.03)  # of the axes' height
        axes.plot(skipped, floor, "x", color=colour, transform=axes.get_xaxis_transform(),
                  markersize=5)  # fmt: skip
        positive = positive or bool((norm > 0).any())
    axes.set(title="gradient", ylabel="global norm, objective in nats/dim")
    if positive:
        _logarithmic(axes)


def _schedule(axes: "Axes", runs: Sequence[Curves], key: str, title: str, unit: str) -> None:
    for run, colour in _coloured(runs):
        _line(axes, run.images, _array(run.train[key]), colour)
    axes.set(title=title, ylabel=unit)
    axes.set_ylim(bottom=0)


def _throughput(axes: "Axes", runs: Sequence[Curves]) -> None:
    for run, colour in _coloured(runs):
        _line(axes, run.images, _array(run.train["images_per_second"]), colour)
    peak = max((m for run in runs for m in run.train["memory_mib"] if m), default=math.nan)
    axes.set(title=f"throughput; peak memory {peak / 1024:.1f} GiB", ylabel="images/s")
    axes.set_ylim(bottom=0)


def _sample_quality(axes: "Axes", runs: Sequence[Curves]) -> None:
    for run, colour in _coloured(runs):
        axes.plot(run.fid_images, _array(run.fid), color=colour, marker="o", markersize=4)
    names = sorted({run.fid_name for run in runs if run.fid_name})
    axes.set(title=f"{' and '.join(names)} of samples", ylabel="distance")
    axes.set_ylim(bottom=0)


def _draw_maps(part: "SubFigure", runs: Sequence[Curves]) -> None:
    """One map a run, groups downward from coarse to fine, all on one logarithmic scale."""
    from matplotlib.colors import LogNorm

    tables = [_kl_table(run) for run in runs]
    highest = max(float(np.nanmax(table, initial=_LEAST_KL)) for table in tables)
    norm = LogNorm(_LEAST_KL, max(10 * _LEAST_KL, highest))
    columns = min(2, len(runs))
    grid = part.subplots(-(-len(runs) // columns), columns, squeeze=False).flatten()
    for axes, run, table in zip(grid, runs, tables, strict=False):
        edges = np.array([0, *run.images], dtype=float)
        groups = np.arange(run.num_groups + 1) + 0.5
        colours = axes.pcolormesh(edges, groups, table.T.clip(_LEAST_KL), norm=norm,
                                  cmap="cividis", rasterized=True)  # fmt: skip
        axes.invert_yaxis()
        axes.grid(visible=False)
        # Names can be as long as a map is wide.
        title = f"{run.name}: KL" if len(runs) > 1 else "KL of each latent group, coarse to fine"
        axes.set(xlabel=_IMAGES)
        axes.set_title(f"{title} (train)", wrap=True)
        _name_groups(axes, run)
        _thousands(axes)
    for axes in grid[len(runs) :]:
        axes.set_axis_off()
    bar = part.colorbar(colours, ax=list(grid), pad=0.01, aspect=28, extend="min")
    bar.set_label("nats per image")
    bar.outline.set_visible(False)


def _kl_table(run: Curves) -> NDArray[np.float64]:
    """KL (T, L), NaN where the log has none."""
    table = np.full((len(run.images), run.num_groups), np.nan)
    for row, kl in zip(table, run.kl_per_group, strict=True):
        if kl is not None:
            row[: len(kl)] = _array(kl)
    return table


def _name_groups(axes: "Axes", run: Curves) -> None:
    """Names the resolution of each level at its first group, or numbers the groups."""
    if run.resolutions is None or len(run.resolutions) != run.num_groups:
        axes.set_ylabel("group")
        return
    levels = run.resolutions
    first = [i for i, r in enumerate(levels) if i == 0 or levels[i - 1] != r]
    last = [*(i - 1 for i in first[1:]), len(levels) - 1]
    for i in first[1:]:
        axes.axhline(i + 0.5, color="white", linewidth=0.6)
    centres = [(a + b) / 2 + 1 for a, b in zip(first, last, strict=True)]
    # Levels of one or two groups among many would print their names over each other.
    apart = max(1, len(levels) / 14)
    ticks: list[tuple[float, str]] = []
    for centre, i in zip(centres, first, strict=True):
        if not ticks or centre - ticks[-1][0] >= apart:
            ticks.append((centre, str(levels[i])))
    axes.set_yticks([y for y, _ in ticks], [name for _, name in ticks])
    axes.tick_params(axis="y", length=0)
    axes.set_ylabel("resolution of the group")


def _mark_alarms(axes: "Axes", runs: Sequence[Curves]) -> None:
    """Marks where alarms rang, and adds the legend where something is named."""
    named = bool(axes.get_legend_handles_labels()[0])
    for i, alarm in enumerate(alarm for run in runs for alarm in run.alarms):
        label = "alarm" if named and i == 0 else None
        axes.axvline(alarm.images, color=_ALARM, linewidth=1.2, linestyle=(0, (1, 1)), label=label)
    if named:
        axes.legend(loc="best")


def _key(axes: "Axes", runs: Sequence[Curves], label: str, **style: Any) -> None:
    """Explains a style in the legend: in the run's colour, or in grey where runs have their own."""
    axes.plot([], [], color=_COLOURS[0] if len(runs) == 1 else _GREY, label=label, **style)


def _logarithmic(axes: "Axes") -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(FuncFormatter(_short))
    axes.yaxis.set_minor_formatter(NullFormatter())


def _thousands(axes: "Axes") -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(_short))


def _short(value: float, _position: int | None = None) -> str:
    """1_500 as 1.5 k, 2_000_000 as 2 M."""
    for scale, unit in ((1e6, " M"), (1e3, " k")):
        if abs(value) >= scale:
            return f"{value / scale:g}{unit}"
    return f"{value:g}"


def _limit_to_most(axes: "Axes", values: NDArray[np.float64]) -> None:
    """The first rows of a run lie far above all others, and would flatten them."""
    finite = np.sort(values[np.isfinite(values)])
    if len(finite) < 10:
        return
    low, high = finite[0], finite[int(0.95 * (len(finite) - 1))]
    margin = 0.06 * max(high - low, 1e-3 * abs(high))
    axes.set_ylim(low - margin, high + 3 * margin)


def _coloured(runs: Sequence[Curves]) -> list[tuple[Curves, str]]:
    return [(run, _COLOURS[i % len(_COLOURS)]) for i, run in enumerate(runs)]


def _line(axes: "Axes", x: Any, y: NDArray[np.float64], colour: str, **style: Any) -> None:
    """A line, and a point for each value that has no neighbour to be joined to."""
    axes.plot(x, y, color=colour, **style)
    gap = np.isnan(np.concatenate([[np.nan], y, [np.nan]]))
    alone = ~gap[1:-1] & gap[:-2] & gap[2:]
    axes.plot(np.asarray(x)[alone], y[alone], ".", color=colour)


def _array(values: Sequence[Number]) -> NDArray[np.float64]:
    return np.array([np.nan if v is None else v for v in values], dtype=float)
