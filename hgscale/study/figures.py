"""The figures of a study, of the kinds that its task names, each as PNG and as SVG for the page.

A figure whose numbers are missing is left out.
"""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hgscale.study.analysis import Analysis, Curve, Fit
from hgscale.study.charts import (
    BLACK,
    COLORS,
    MAX_DOT_ROWS,
    Drawn,
    Picture,
    by_curve,
    dot,
    dot_plot,
    draw_over,
    few,
    legend_above,
    lines_of,
    log_ticks,
    multiples,
    name_lines,
    overlay,
    picture_of,
    ratios_of,
    spread,
    write,
)
from hgscale.study.fit import Interval, PowerLaw
from hgscale.study.words import digits, shown
from hgscale.train.reports import Collapse, Exponents, Lines, Panel, Plateau, Ratios, Shares


def draw(analysis: Analysis, folder: Path) -> list[Drawn]:
    """Draw every figure of the task that the study has numbers for.

    Args:
        analysis: of the study.
        folder: for the PNG files, ``<name>.png``; files there are replaced, whole.

    Raises:
        RunError: if a file cannot be written.
    """
    pictures = [_KINDS[type(panel)](analysis, panel) for panel in analysis.task.panels]
    return [write(picture, folder) for picture in pictures if picture is not None]


def _lines(analysis: Analysis, panel: Lines) -> Picture | None:
    against = f" against {analysis.words(analysis.x)}" if panel.against_x and analysis.over_x else ""
    if analysis.over_x:
        found = [curve for curve in analysis.curves if curve.has(panel.looks[-1].measure)]
        figure = multiples(analysis, found, panel.looks, panel.label, log_y=panel.log)
        return picture_of(panel.name, panel.title + against, panel.caption, figure)
    looks = [*reversed(panel.looks), *panel.only_in_rows]
    figure = by_curve(analysis, looks, panel.label, log_x=panel.log)
    return picture_of(panel.name, panel.title, panel.caption_of_rows or panel.caption, figure)


def _ratios(analysis: Analysis, panel: Ratios) -> Picture | None:
    main = panel.looks[0].measure
    found = [curve for curve in analysis.curves if curve.has(main)]
    if not found:
        return None
    if analysis.over_x:
        figure = ratios_of(analysis, found, [curve.means(main) for curve in found], panel.label)
        return Picture(panel.name, panel.title, panel.caption, figure, few(found))
    rows = by_curve(analysis, panel.looks, panel.label_of_rows, log_x=False, reference=1)
    return picture_of(panel.name, panel.title, panel.caption, rows)


def _collapse(analysis: Analysis, panel: Collapse) -> Picture | None:
    found = [curve for curve in analysis.curves if curve.has(panel.measure) and curve.has(panel.over)]
    if not found:
        return None
    figure, (axes,) = overlay(analysis, found, 1)
    lines = lines_of(analysis, found, panel.measure, panel.over)
    x = np.concatenate([line.x for line in lines])
    reach = np.geomspace(x.min() / 1.3, x.max() * 1.3, 50)
    law = panel.law(reach)
    means = [mean.mean for line in lines for mean in line.means if mean is not None and mean.mean > 0]
    if not means:
        return None
    low, high = min(*means, law[-1]), max(means)
    frame: dict[str, Any] = {
        "xlim": (reach[0], reach[-1]),
        "ylim": (low / 1.4, min(max(high, law[0]), panel.most) * 1.4),
    }
    axes.set(xscale="log", yscale="log", **frame)
    draw_over(axes, lines)
    axes.set(**frame, ylabel=panel.label, xlabel=panel.over_label)
    axes.plot(reach, law, color=BLACK, lw=1.2, ls="--", zorder=1)
    log_ticks(axes, "x")
    log_ticks(axes, "y")
    axes.text(0.97, 0.95, panel.formula, transform=axes.transAxes, ha="right", va="top", fontsize=9.5)
    name_lines(axes, lines)
    return Picture(panel.name, panel.title, panel.caption, figure, few(found))


def _exponents(analysis: Analysis, panel: Exponents) -> Picture | None:
    overs = list(dict.fromkeys(fit.over for fit in analysis.fits if fit.law))
    groups = {over: _fitted_curves(analysis.fits, over) for over in overs}
    if not groups:
        return None
    figure, all_axes = dot_plot([[curve.label for curve in found] for found in groups.values()])
    num_more = len({id(fit.curve) for fit in analysis.fits if fit.law}) - sum(map(len, groups.values()))
    fitted = analysis.task.fitted
    order = [one.measure for one in fitted]
    for axes, (over, found) in zip(all_axes, groups.items(), strict=True):
        for fit in analysis.fits:
            if fit.law is not None and fit.over == over and fit.curve in found:
                law, at = fit.law, order.index(fit.measure)
                interval = Interval(law.exponent, law.exponent_low, law.exponent_high, law.num_seeds)
                dot(axes, interval, found.index(fit.curve) + spread(at, len(order)), COLORS[fitted[at].color])
        reference = panel.expected.get(over.rpartition(".")[2])
        if reference is not None:
            axes.axvline(reference, color=BLACK, lw=1, ls="--", zorder=0)
        axes.set_xlabel(f"exponent over {analysis.words(over)}")
        laws = [fit.law for fit in analysis.fits if fit.law and fit.over == over and fit.curve in found]
        axes.set_xlim(*_exponent_range(laws, reference))
    legend_above(figure, [[(one.word, COLORS[one.color], "", "o") for one in fitted]])
    more = f" {num_more:,} more curves are in the table." if num_more else ""
    return Picture(panel.name, panel.title, panel.caption + more, figure)


def _exponent_range(laws: Sequence[PowerLaw], reference: float | None) -> tuple[float, float]:
    """A range that holds the exponents, and their bars as far as they do not dwarf the rest."""
    middles = [law.exponent for law in laws] + ([] if reference is None else [reference])
    ends = [end for law in laws for end in (law.exponent_low, law.exponent_high) if math.isfinite(end)]
    low = max(min([*middles, *ends]), min(middles) - 0.3)
    high = min(max([*middles, *ends]), max(middles) + 0.3)
    margin = max(0.06 * (high - low), 0.02)
    return low - margin, high + margin


def _fitted_curves(fits: Sequence[Fit], over: str) -> list[Curve]:
    return list(dict.fromkeys(fit.curve for fit in fits if fit.law and fit.over == over))[:MAX_DOT_ROWS]


def _shares(analysis: Analysis, panel: Shares) -> Picture | None:
    names = [look.measure for look in panel.looks]
    found = [curve for curve in analysis.curves if all(map(curve.has, names))]
    if not found:
        return None
    if not analysis.over_x:
        rows = by_curve(analysis, panel.looks, panel.label, log_x=False)
        return picture_of(panel.name, panel.title, panel.caption, rows)
    figure, all_axes = overlay(analysis, found, len(names))
    sides = [lines_of(analysis, found, name) for name in names]
    lowest = min(mean.mean for lines in sides for line in lines for mean in line.means if mean)
    for axes, lines, name in zip(all_axes, sides, names, strict=True):
        axes.set(ylim=(-0.03 if lowest < 0.5 else 0.47, 1.03))
        draw_over(axes, lines, dodge=True)
        axes.set(xlabel=analysis.words(analysis.x), ylabel=analysis.words(name))
    name_lines(all_axes[-1], sides[-1])
    return Picture(panel.name, panel.title, panel.caption, figure, few(found))


def _plateau(analysis: Analysis, panel: Plateau) -> Picture | None:
    found = [curve for curve in analysis.curves if all(map(curve.has, (*panel.measures, panel.over)))]
    if not found or not all(map(analysis.shows, panel.measures)):
        return None
    figure, both = overlay(analysis, found, 2)
    sides = [lines_of(analysis, found, name, panel.over) for name in panel.measures]
    best = max((mean for line in sides[1] for mean in line.means if mean), key=lambda mean: mean.mean)
    for axes, lines, word in zip(both, sides, panel.labels, strict=True):
        if positive := [mean.mean for line in lines for mean in line.means if mean and mean.mean > 0]:
            axes.set(yscale="log", ylim=(min(positive) / 1.6, max(positive) * 1.9))
        draw_over(axes, lines)
        if axes.get_yscale() == "log":
            log_ticks(axes, "y")
        axes.set(xlabel=panel.over_label, ylabel=word)
    both[1].axhline(best.mean, color=BLACK, lw=1, ls="--", zorder=1)
    both[1].annotate(
        f"plateau {digits(best.mean)}", (0.98, best.mean), (0, 4), xycoords=("axes fraction", "data"),
        textcoords="offset points", ha="right", fontsize=9,
    )  # fmt: skip
    name_lines(both[1], sides[1])
    caption = panel.caption.replace("{best}", shown(best))
    return Picture(panel.name, panel.title, caption, figure, few(found))


_KINDS: dict[type[Panel], Callable[[Analysis, Any], Picture | None]] = {
    Lines: _lines,
    Ratios: _ratios,
    Collapse: _collapse,
    Exponents: _exponents,
    Shares: _shares,
    Plateau: _plateau,
}
