"""The figure of a run: what was recovered against the truth, beside what counting the same samples gives."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, LogFormatterSciNotation, LogLocator, NullLocator
from scipy.special import erf

from hgscale.files import writing
from hgscale.rng import stream

MAX_POINTS = 20_000
"""Points drawn per cloud; more are one blot."""
MAX_LEVELS = 12
"""Worlds of at most so many distinct weights are drawn as columns, one per weight."""


class Estimate(NamedTuple):
    """One estimate of the world's weights, and how it looks."""

    name: str
    weights: np.ndarray  # [E]
    color: str
    opacity: float


def recovery_figure(
    world_weights: np.ndarray,
    recovered: np.ndarray,
    counts_weights: np.ndarray | None,
    summary: Mapping[str, Any],
    path: str | Path,
) -> None:
    """Draw a recovery as PNG: weights against the truth, and the errors in units of counting's.

    Args:
        world_weights: [E] float64, positive, summing to 1.
        recovered: [E] float64, recovered weight of each edge of the world.
        counts_weights: [E] float64, the estimate of counting the very samples, or None.
        summary: of the run; read are ``num_samples``, ``ratio_to_floor``, ``recovery_l1``, ``count_floor_l1`` and
            ``off_support_mass``, each left out of the figure where it is missing or None.
        path: of the PNG; a file there is replaced, whole.

    Raises:
        RunError: if the file cannot be written.
    """
    estimates = [Estimate("model", recovered, "#1f4e9c", 1.0)]
    if counts_weights is not None:
        estimates.insert(0, Estimate("counting the same samples", counts_weights, "#e08a1e", 0.6))
    num_samples = summary.get("num_samples")
    figure = Figure(figsize=(11, 5.6), dpi=140)
    figure.subplots_adjust(left=0.085, right=0.98, bottom=0.125, top=0.875, wspace=0.2)
    left, right = figure.subplots(1, 2)
    levels = _levels(world_weights)
    if len(levels) <= MAX_LEVELS:
        _draw_columns(left, world_weights, levels, estimates, num_samples)
    else:
        _draw_cloud(left, world_weights, estimates, num_samples)
    _draw_errors(right, world_weights, estimates, num_samples)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=10)
    headline, details = _words(len(world_weights), summary)
    figure.text(0.015, 0.975, headline, va="top", fontsize=15, fontweight="bold")
    figure.text(0.985, 0.97, details, ha="right", va="top", fontsize=11, color="#444444")
    _write(figure, Path(path))


def _draw_cloud(axes: Axes, truth: np.ndarray, estimates: list[Estimate], num_samples: int | None) -> None:
    """Estimated against true weights, log-log; a triangle on the frame stands for what lies beyond it."""
    low, high = _limits(truth, estimates)
    line = np.geomspace(low, high, 400)
    if num_samples:
        noise = 2 * _counting_sd(line, num_samples)
        _band(axes, line, np.maximum(line - noise, low), line + noise, num_samples)
    shown = _shown(len(truth))
    size = 30 if len(shown) < 200 else 12 if len(shown) < 1500 else 6
    for estimate in estimates:
        _scatter(axes, truth[shown], estimate.weights[shown], estimate, size, low, low)
    axes.plot(line, line, color="black", lw=1, label="truth")
    axes.set(xscale="log", yscale="log", xlim=(low, high), ylim=(low, high))
    for axis in (axes.xaxis, axes.yaxis):
        if high / low < 100:  # powers of ten alone would be one label
            axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.set_major_formatter(LogFormatterSciNotation(labelOnlyBase=False, minor_thresholds=(9, 9)))
            axis.set_minor_locator(NullLocator())
    _label(axes, len(truth))


def _draw_columns(
    axes: Axes, truth: np.ndarray, levels: np.ndarray, estimates: list[Estimate], num_samples: int | None
) -> None:
    """A column per distinct true weight: the truth as a line across it, the edges of each estimate side by side."""
    top = max(float(estimate.weights.max()) for estimate in [*estimates, Estimate("truth", truth, "", 1.0)])
    low = 0.0
    if levels[-1] / levels[0] > 20:
        low = float(levels[0]) / 30
        axes.set(yscale="log", ylim=(low, top * (top / low) ** 0.35))
    else:
        axes.set_ylim(0, 1.35 * top)
        axes.ticklabel_format(axis="y", style="sci", scilimits=(-2, 2), useMathText=True)
    for i, level in enumerate(levels):
        span = np.array([i - 0.42, i + 0.42])
        if num_samples:
            noise = 2 * _counting_sd(level, num_samples)
            _band(axes, span, np.repeat(max(level - noise, low), 2), np.repeat(level + noise, 2), num_samples, i == 0)
        axes.plot(span, [level, level], color="black", lw=1.2, label="truth" if i == 0 else None, zorder=3)
    column = np.abs(np.log(truth)[:, None] - np.log(levels)).argmin(axis=1)
    shown = _shown(len(truth))
    size = 40 if len(truth) < 50 else 20 if len(truth) < 300 else 9
    width = 0.84 / len(estimates)
    for i, estimate in enumerate(estimates):
        jitter = stream(i, "figure jitter").uniform(-0.4, 0.4, len(truth))
        x = column - 0.42 + width * (i + 0.5 + jitter)
        _scatter(axes, x[shown], estimate.weights[shown], estimate, size, -1.0, low)
    axes.set_xlim(-0.6, len(levels) - 0.4)
    axes.xaxis.set_major_locator(FixedLocator(range(len(levels))))
    if len(levels) <= 5:
        num_edges = np.bincount(column, minlength=len(levels))
        axes.set_xticklabels([f"{level:.3g}\nE = {num:,}" for level, num in zip(levels, num_edges, strict=True)])
    else:
        axes.set_xticklabels([f"{level:.2g}" for level in levels])
    _label(axes, len(truth))


def _scatter(
    axes: Axes, x: np.ndarray, y: np.ndarray, estimate: Estimate, size: int, x_low: float, y_low: float
) -> None:
    """Points of one estimate; those left of or below the frame as triangles on it."""
    left, below = x < x_low, (y < y_low) & (x >= x_low)
    inside = ~left & ~below
    color, alpha = estimate.color, (0.9 if len(x) < 50 else 0.6) * estimate.opacity
    axes.scatter(x[inside], y[inside], s=size, color=color, alpha=alpha, lw=0, label=estimate.name)
    for marker, at in (("<", left), ("v", below)):
        x_at, y_at = np.maximum(x[at], x_low), np.maximum(y[at], y_low)
        axes.scatter(x_at, y_at, s=22, marker=marker, color=color, alpha=alpha, lw=0, clip_on=False)


def _label(axes: Axes, num_edges: int) -> None:
    few = f"   ({MAX_POINTS:,} of {num_edges:,} edges drawn)" if num_edges > MAX_POINTS else ""
    axes.set_xlabel(f"true weight{few}", fontsize=11)
    axes.set_ylabel("recovered weight", fontsize=11)
    _legend(axes, "upper left")


def _draw_errors(axes: Axes, truth: np.ndarray, estimates: list[Estimate], num_samples: int | None) -> None:
    """Share of the edges whose error is at most x, in standard deviations of counting; without N, in |log2 ratio|."""
    tiny = np.finfo(float).tiny
    if num_samples and truth.max() < 1:
        sd = _counting_sd(truth, num_samples)
        errors = [np.sort(np.abs(estimate.weights - truth) / sd) for estimate in estimates]
        axes.set_xlabel("|error| of an edge, in standard deviations of counting", fontsize=11)
        least, most = 3.5, 30.0
        line = np.linspace(0, most, 2000)
        axes.plot(line, erf(line / np.sqrt(2)), color="black", lw=1.2, ls="--", label="counting, large N: median 0.67")
    else:
        errors = [np.sort(np.abs(np.log2(np.maximum(estimate.weights, tiny) / truth))) for estimate in estimates]
        axes.set_xlabel("|log2 of recovered / true weight| of an edge", fontsize=11)
        least, most = 0.1, 10.0
    reach = float(np.clip(1.2 * max(np.quantile(error, 0.95) for error in errors), least, most))
    share = np.append(np.arange(len(truth) + 1) / len(truth), 1)
    for (name, _, color, _), error in zip(estimates, errors, strict=True):
        x = np.concatenate([[0], error, [max(reach, error[-1])]])
        axes.step(x, share, where="post", color=color, lw=2.2, label=f"{name}: median {np.median(error):.2f}")
    axes.set(xlim=(0, reach), ylim=(0, 1.02))
    axes.set_title("\u2190 further left is better", loc="left", fontsize=10, color="#666666")
    axes.set_ylabel("share of edges with at most this error", fontsize=11)
    axes.grid(color="#eeeeee")
    _legend(axes, "lower right")


def _shown(num_edges: int) -> np.ndarray:
    """Which edges are drawn: all, or as many as can be told apart."""
    if num_edges <= MAX_POINTS:
        return np.arange(num_edges)
    return np.sort(stream(0, "figure points").choice(num_edges, MAX_POINTS, replace=False))


def _counting_sd(weights: np.ndarray, num_samples: int) -> np.ndarray:
    """Standard deviation of count / N, a binomial's."""
    deviations: np.ndarray = np.sqrt(np.clip(weights * (1 - weights), 0, None) / num_samples)
    return deviations


def _levels(truth: np.ndarray) -> np.ndarray:
    """Distinct weights, ascending, those counted as one that differ by rounding."""
    ascending = np.unique(truth)
    levels: np.ndarray = ascending[np.append(True, np.diff(np.log(ascending)) > 1e-6)]
    return levels


def _band(
    axes: Axes, x: np.ndarray, low: np.ndarray, high: np.ndarray, num_samples: int, labelled: bool = True
) -> None:
    """Shade what counting noise looks like."""
    label = f"\u00b12 sd of counting at N = {num_samples:,}" if labelled else None
    axes.fill_between(x, low, high, color="#d9d9d9", lw=0, label=label, zorder=0)


def _legend(axes: Axes, place: Literal["upper left", "lower right"]) -> None:
    legend = axes.legend(fontsize=9.5, loc=place, frameon=True, framealpha=0.85, edgecolor="none")
    for handle in legend.legend_handles:
        if isinstance(handle, PathCollection):
            handle.set(alpha=1, sizes=[34])


def _limits(truth: np.ndarray, estimates: list[Estimate]) -> tuple[float, float]:
    """One range for both axes: the world's weights and most of the estimates, without the far lower tail."""
    low, high = np.quantile(truth, 0.005), truth.max()
    for estimate in estimates:
        if (positive := estimate.weights[estimate.weights > 0]).size:
            low = max(min(low, np.quantile(positive, 0.005)), low / 30)
            high = max(high, positive.max())
    return float(low) / 1.5, float(high) * 1.5


def _words(num_edges: int, summary: Mapping[str, Any]) -> tuple[str, str]:
    """Headline and details, of what the summary has."""
    ratio = summary.get("ratio_to_floor")
    headline = "recovery" if ratio is None else f"error {ratio:.2f} \u00d7 the floor of counting"
    parts = [
        f"{label} {value:{spec}}"
        for label, name, spec in (
            ("l1", "recovery_l1", ".4f"),
            ("floor", "count_floor_l1", ".4f"),
            ("off-support mass", "off_support_mass", ".4f"),
            ("N =", "num_samples", ","),
        )
        if (value := summary.get(name)) is not None
    ]
    return headline, "    ".join([*parts, f"E = {num_edges:,}"])


def _write(figure: Figure, path: Path) -> None:
    with writing(path, "make room or give another --run_dir") as file:
        FigureCanvasAgg(figure).print_png(file)
