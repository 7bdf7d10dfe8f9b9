"""The figures of a study, each as PNG and as SVG for the page. A figure whose numbers are missing is left out."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hgscale.study.analysis import Analysis, Curve, Fit
from hgscale.study.charts import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    MAX_DOT_ROWS,
    ORANGE,
    PINK,
    Drawn,
    Look,
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
from hgscale.study.measures import CAPACITY_MEASURES, FITTED, SCORES
from hgscale.study.words import digits, shown

if TYPE_CHECKING:
    from matplotlib.figure import Figure


ERRORS: tuple[Look, ...] = (
    ("structured_floor_l1", "structured floor", GREY, ":"),
    ("count_floor_l1", "floor", BLACK, "--"),
    ("absolute_discounting_l1", "absolute discounting", PINK, "-"),
    ("good_turing_l1", "Good-Turing", GREEN, "-"),
    ("count_l1", "counting", ORANGE, "-"),
    ("recovery_l1", "learned", BLUE, "-"),
)
LIKELIHOODS: tuple[Look, ...] = (
    ("best_log_likelihood", "the world itself", BLACK, "--"),
    ("absolute_discounting_log_likelihood", "absolute discounting", PINK, "-"),
    ("good_turing_log_likelihood", "Good-Turing", GREEN, "-"),
    ("log_likelihood", "learned", BLUE, "-"),
)
HELD_OUT_ERRORS: tuple[Look, ...] = (
    ("heldout_world_l1", "the whole trained part", BLACK, "--"),
    ("heldout_absolute_discounting_l1", "absolute discounting", PINK, "-"),
    ("heldout_good_turing_l1", "Good-Turing", GREEN, "-"),
    ("heldout_count_l1", "counting", ORANGE, "-"),
    ("heldout_l1", "learned", BLUE, "-"),
)
TEST_SCORES: tuple[Look, ...] = (
    ("test_f1", "F1", BLUE, "-"),
    ("test_precision", "precision", GREEN, "-"),
    ("test_recall", "recall", PINK, "-"),
    ("test_accuracy", "accuracy", ORANGE, "-"),
)
HELD_OUT_LIKELIHOODS = tuple((f"heldout_{name}", word, color, style) for name, word, color, style in LIKELIHOODS[1:])


def draw(analysis: Analysis, folder: Path) -> list[Drawn]:
    """Draw every figure that the study has numbers for.

    Args:
        analysis: of the study.
        folder: for the PNG files, ``<name>.png``; files there are replaced, whole.

    Raises:
        RunError: if a file cannot be written.
    """
    if analysis.headline in SCORES:
        return [write(picture, folder) for picture in [_scores(analysis)] if picture is not None]
    pictures = [_errors(analysis), _ratio(analysis), _collapse(analysis), _exponents(analysis), _support(analysis)]
    pictures += [
        _capacity(analysis),
        _likelihood(analysis, LIKELIHOODS, "Expected log-likelihood", "of edges newly drawn from the world"),
        _held_out_errors(analysis),
        _likelihood(analysis, HELD_OUT_LIKELIHOODS, "Held-out log-likelihood", "of the held-out part of the file"),
    ]
    return [write(picture, folder) for picture in pictures if picture is not None]


def _scores(analysis: Analysis) -> Picture | None:
    caption = "Scores on the test split: F1 is the micro average over related pairs, accuracy is over all pairs."
    if not analysis.over_x:
        return picture_of("scores", "Scores", caption, by_curve(analysis, TEST_SCORES, "test split", log_x=False))
    found = [curve for curve in analysis.curves if curve.has("test_f1")]
    figure = multiples(analysis, found, list(reversed(TEST_SCORES)), "test split", log_y=False)
    return picture_of("scores", f"Scores against {analysis.words(analysis.config.x)}", caption, figure)


def _errors(analysis: Analysis) -> Picture | None:
    if not analysis.over_x:
        looks = [*reversed(ERRORS), ("published_l1", "published", PINK, "")]
        figure = by_curve(analysis, looks, "l1 error", log_x=True)
        caption = "Error of each setting against the truth, learned and by counting: the further left the better."
        return picture_of("error", "Error", caption, figure)
    figure = multiples(analysis, [curve for curve in analysis.curves if curve.has("recovery_l1")], ERRORS, "l1 error")
    caption = (
        "Error against the truth, beside what counting gives on the very samples (counting) and in expectation "
        "(floor): the lower the better, and a learned curve on the floor wastes no sample."
    )
    return picture_of("error", f"Error against {analysis.words(analysis.config.x)}", caption, figure)


def _ratio(analysis: Analysis) -> Picture | None:
    found = [curve for curve in analysis.curves if curve.has("ratio_to_floor")]
    if not found:
        return None
    if analysis.over_x:
        ratios = [curve.means("ratio_to_floor") for curve in found]
        figure: Figure | None = ratios_of(analysis, found, ratios, "learned error / floor of counting")
    else:
        looks = [("ratio_to_floor", "learned", BLUE, ""), ("published_ratio_to_floor", "published", PINK, "")]
        figure = by_curve(analysis, looks, "error / floor of counting", log_x=False, reference=1)
    caption = "Learned error in units of the floor: 1 is as good as counting can be expected to be, below 1 is better."
    return picture_of("ratio", "Ratio to the floor", caption, figure, not analysis.over_x or few(found))


def _collapse(analysis: Analysis) -> Picture | None:
    found = [curve for curve in analysis.curves if curve.has("recovery_l1") and curve.has("samples_per_half_norm")]
    if not found:
        return None
    figure, (axes,) = overlay(analysis, found, 1)
    lines = lines_of(analysis, found, "recovery_l1", "samples_per_half_norm")
    x = np.concatenate([line.x for line in lines])
    reach = np.geomspace(x.min() / 1.3, x.max() * 1.3, 50)
    counting = np.sqrt(2 / (np.pi * reach))
    means = [mean.mean for line in lines for mean in line.means if mean is not None and mean.mean > 0]
    if not means:
        return None
    low, high = min(*means, counting[-1]), max(means)
    frame = {"xlim": (reach[0], reach[-1]), "ylim": (low / 1.4, min(max(high, counting[0]), 2) * 1.4)}
    axes.set(xscale="log", yscale="log", **frame)
    draw_over(axes, lines)
    axes.set(**frame, ylabel="learned l1 error", xlabel="samples N / half-norm")
    axes.plot(reach, counting, color=BLACK, lw=1.2, ls="--", zorder=1)
    log_ticks(axes, "x")
    log_ticks(axes, "y")
    formula = "dashed: counting, \u221a(2 / \u03c0x)"
    axes.text(0.97, 0.95, formula, transform=axes.transAxes, ha="right", va="top", fontsize=9.5)
    name_lines(axes, lines)
    caption = (
        "Error over N / half-norm, the samples per effective edge: worlds of any size fall on the dashed line of "
        "counting, sqrt(2 / (pi x)), where nothing but sampling noise is left."
    )
    return Picture("collapse", "Collapse over N / half-norm", caption, figure, few(found))


def _exponents(analysis: Analysis) -> Picture | None:
    overs = list(dict.fromkeys(fit.over for fit in analysis.fits if fit.law))
    groups = {over: _fitted_curves(analysis.fits, over) for over in overs}
    if not groups:
        return None
    figure, all_axes = dot_plot([[curve.label for curve in found] for found in groups.values()])
    num_more = len({id(fit.curve) for fit in analysis.fits if fit.law}) - sum(map(len, groups.values()))
    looks = {name: (word, color) for name, word, color, _ in ERRORS if name in FITTED}
    for axes, (over, found) in zip(all_axes, groups.items(), strict=True):
        for fit in analysis.fits:
            if fit.law is not None and fit.over == over and fit.curve in found:
                law, row = fit.law, found.index(fit.curve) + spread(list(FITTED).index(fit.measure), len(FITTED))
                interval = Interval(law.exponent, law.exponent_low, law.exponent_high, law.num_seeds)
                dot(axes, interval, row, looks[fit.measure][1])
        reference = {"num_samples": -0.5, "num_edges": 0.5, "half_norm": 0.5}.get(over.rpartition(".")[2])
        if reference is not None:
            axes.axvline(reference, color=BLACK, lw=1, ls="--", zorder=0)
        axes.set_xlabel(f"exponent over {analysis.words(over)}")
        laws = [fit.law for fit in analysis.fits if fit.law and fit.over == over and fit.curve in found]
        axes.set_xlim(*_exponent_range(laws, reference))
    legend_above(figure, [[(looks[name][0], looks[name][1], "", "o") for name in FITTED]])
    caption = (
        "Exponents of power laws fitted to the error; the dashed line is what sampling noise gives, -1/2 over samples "
        "and +1/2 over edges. A bar that leaves the frame belongs to a fit that says little."
    )
    if num_more:
        caption += f" {num_more:,} more curves are in the table."
    return Picture("exponents", "Exponents", caption, figure)


def _exponent_range(laws: Sequence[PowerLaw], reference: float | None) -> tuple[float, float]:
    """A range that holds the exponents, and their bars as far as they do not dwarf the rest."""
    middles = [law.exponent for law in laws] + ([] if reference is None else [reference])
    ends = [end for law in laws for end in (law.exponent_low, law.exponent_high) if math.isfinite(end)]
    low = max(min([*middles, *ends]), min(middles) - 0.3)
    high = min(max([*middles, *ends]), max(middles) + 0.3)
    margin = max(0.06 * (high - low), 0.02)
    return low - margin, high + margin


def _support(analysis: Analysis) -> Picture | None:
    names = ("support_precision", "support_recall")
    found = [curve for curve in analysis.curves if all(map(curve.has, names))]
    caption = (
        "Of the edges that were read out, the share that exists (precision); of those that exist, the share that was "
        "read out (recall)."
    )
    if not found:
        return None
    if not analysis.over_x:
        looks = [(names[0], "precision", BLUE, ""), (names[1], "recall", ORANGE, "")]
        rows = by_curve(analysis, looks, "share of edges", log_x=False)
        return picture_of("support", "Support precision and recall", caption, rows)
    figure, both = overlay(analysis, found, 2)
    sides = [lines_of(analysis, found, name) for name in names]
    lowest = min(mean.mean for lines in sides for line in lines for mean in line.means if mean)
    for axes, lines, name in zip(both, sides, names, strict=True):
        axes.set(ylim=(-0.03 if lowest < 0.5 else 0.47, 1.03))
        draw_over(axes, lines, dodge=True)
        axes.set(xlabel=analysis.words(analysis.config.x), ylabel=analysis.words(name))
    name_lines(both[1], sides[1])
    return Picture("support", "Support precision and recall", caption, figure, few(found))


def _capacity(analysis: Analysis) -> Picture | None:
    names = CAPACITY_MEASURES
    found = [curve for curve in analysis.curves if all(map(curve.has, (*names, "parameters_per_edge")))]
    if not found or not analysis.config.capacity:
        return None
    figure, both = overlay(analysis, found, 2)
    sides = [lines_of(analysis, found, name, "parameters_per_edge") for name in names]
    best = max((mean for line in sides[1] for mean in line.means if mean), key=lambda mean: mean.mean)
    for axes, lines, word in zip(both, sides, ("bits held", "bits per parameter"), strict=True):
        if positive := [mean.mean for line in lines for mean in line.means if mean and mean.mean > 0]:
            axes.set(yscale="log", ylim=(min(positive) / 1.6, max(positive) * 1.9))
        draw_over(axes, lines)
        if axes.get_yscale() == "log":
            log_ticks(axes, "y")
        axes.set(xlabel="parameters per edge", ylabel=word)
    both[1].axhline(best.mean, color=BLACK, lw=1, ls="--", zorder=1)
    both[1].annotate(
        f"plateau {digits(best.mean)}", (0.98, best.mean), (0, 4), xycoords=("axes fraction", "data"),
        textcoords="offset points", ha="right", fontsize=9,
    )  # fmt: skip
    name_lines(both[1], sides[1])
    caption = (
        "What models of different size know about the world; the dashed plateau is the largest mean, "
        f"{shown(best)} bits per parameter."
    )
    return Picture("capacity", "Capacity", caption, figure, few(found))


def _held_out_errors(analysis: Analysis) -> Picture | None:
    found = [curve for curve in analysis.curves if curve.has("heldout_l1")]
    if not analysis.over_x:
        looks = [(name, word, color, "") for name, word, color, _ in reversed(HELD_OUT_ERRORS)]
        figure = by_curve(analysis, looks, "l1 error, held-out", log_x=True)
    else:
        figure = multiples(analysis, found, HELD_OUT_ERRORS, "l1 error, held-out")
    caption = (
        "Error against the held-out part of the file, which the trained part itself does not meet (the whole trained "
        "part): the lower the better."
    )
    return picture_of("heldout_error", "Held-out error", caption, figure)


def _likelihood(analysis: Analysis, looks: Sequence[Look], title: str, what: str) -> Picture | None:
    main = looks[-1][0]
    found = [curve for curve in analysis.curves if curve.has(main)]
    if analysis.over_x:
        figure = multiples(analysis, found, looks, "log-likelihood per edge, nats", log_y=False)
    else:
        upright = [(name, word, color, "") for name, word, color, _ in reversed(looks)]
        figure = by_curve(analysis, upright, "log-likelihood per edge, nats", log_x=False)
    return picture_of(main, title, f"Mean log-likelihood {what}: the higher the better.", figure)


def _fitted_curves(fits: Sequence[Fit], over: str) -> list[Curve]:
    return list(dict.fromkeys(fit.curve for fit in fits if fit.law and fit.over == over))[:MAX_DOT_ROWS]
