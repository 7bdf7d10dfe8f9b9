"""The figures of a study, each as PNG and as SVG for the page. A figure whose numbers are missing is left out.

Colours are told apart by colour-blind readers. Filled markers are points within the range of validity of fits, hollow
ones lie outside; bars are 95% intervals over seeds.
"""

import io
import math
import os
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hgscale.errors import RunError
from hgscale.study.analysis import CAPACITY_MEASURES, FITTED, SCORES, Analysis, Curve, Fit, digits, shown
from hgscale.study.fit import Interval, PowerLaw

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 7.6  # inches, as wide as the page's column
LETTER = 0.072  # inches of a letter at 9 to 9.5 points, in a wide font
MAX_PANELS = 12
"""At most so many curves have a panel each; more share panels."""
MAX_NAMED = 8
"""At most so many curves in one panel have a colour and a name each; more are coloured in groups."""
MAX_NAME = 30
"""Letters of a curve's name beside its end; the tables have all."""
MAX_DOT_ROWS = 40
"""Rows of one dot plot; the tables have all."""

BLUE, ORANGE, GREEN, PINK, BLACK, GREY = "#1f4e9c", "#e08a1e", "#009e73", "#cc6699", "#222222", "#777777"
CURVE_COLORS = (BLUE, "#d55e00", GREEN, PINK, "#56b4e9", "#8a6d00", BLACK, "#8250c4")

Look = tuple[str, str, str, str]  # field, name, colour, line style
Entry = tuple[str, str, str, str]  # of a legend: name, colour, line style, marker (hollow, o or none)
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

_RAISED = str.maketrans("-0123456789", "\u207b\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079")


@dataclass(frozen=True)
class Drawn:
    """A finished figure: its name, what to see in it, and its two forms."""

    name: str
    title: str
    caption: str
    png: Path
    svg: str
    has_intervals: bool


@dataclass(frozen=True)
class Line:
    """Means over x with intervals, as they are drawn."""

    label: str
    color: str
    style: str
    x: np.ndarray  # [p]
    means: list[Interval | None]
    filled: np.ndarray  # [p] bool

    @property
    def drawable(self) -> np.ndarray:
        return np.array([mean is not None for mean in self.means], dtype=bool)


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


@dataclass(frozen=True)
class Picture:
    """A figure before it is written."""

    name: str
    title: str
    caption: str
    figure: "Figure"
    has_intervals: bool = True  # whether bars are drawn; among many curves there is no room for them


def write(picture: Picture, folder: Path) -> Drawn:
    """Write a figure's PNG, and render its SVG for a page that may hold many."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    path = folder / f"{picture.name}.png"
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        FigureCanvasAgg(picture.figure).print_png(temporary)
        temporary.replace(path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        raise RunError(f"{path}: cannot be written ({error.strerror}); make room or give another --out") from None
    buffer = io.StringIO()
    # Text stays text: a page is smaller, and can be searched and read aloud.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": picture.name}):
        FigureCanvasSVG(picture.figure).print_svg(
            buffer, metadata=dict.fromkeys(("Creator", "Date", "Format", "Type"), None)
        )
    svg = _inline(buffer.getvalue(), picture.name)
    return Drawn(picture.name, picture.title, picture.caption, path, svg, picture.has_intervals)


def _inline(svg: str, name: str) -> str:
    """An SVG document as an element of a page: nothing outside is named, and ids are the figure's own."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r' xmlns(:xlink)?="[^"]*"', "", svg)
    svg = re.sub(r' (width|height)="[^"]*pt"', "", svg, count=2)
    svg = svg.replace("xlink:href=", "href=")
    return re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", svg)


# ---------------------------------------------------------------------------------------------------------- figures


def _scores(analysis: Analysis) -> Picture | None:
    caption = "Scores on the test split: F1 is the micro average over related pairs, accuracy is over all pairs."
    if not analysis.over_x:
        return _picture("scores", "Scores", caption, _by_curve(analysis, TEST_SCORES, "test split", log_x=False))
    found = [curve for curve in analysis.curves if curve.has("test_f1")]
    figure = multiples(analysis, found, list(reversed(TEST_SCORES)), "test split", log_y=False)
    return _picture("scores", f"Scores against {analysis.words(analysis.config.x)}", caption, figure)


def _errors(analysis: Analysis) -> Picture | None:
    if not analysis.over_x:
        looks = [*reversed(ERRORS), ("published_l1", "published", PINK, "")]
        figure = _by_curve(analysis, looks, "l1 error", log_x=True)
        caption = "Error of each setting against the truth, learned and by counting: the further left the better."
        return _picture("error", "Error", caption, figure)
    figure = multiples(analysis, [curve for curve in analysis.curves if curve.has("recovery_l1")], ERRORS, "l1 error")
    caption = (
        "Error against the truth, beside what counting gives on the very samples (counting) and in expectation "
        "(floor): the lower the better, and a learned curve on the floor wastes no sample."
    )
    return _picture("error", f"Error against {analysis.words(analysis.config.x)}", caption, figure)


def _ratio(analysis: Analysis) -> Picture | None:
    found = [curve for curve in analysis.curves if curve.has("ratio_to_floor")]
    if not found:
        return None
    if analysis.over_x:
        ratios = [curve.means("ratio_to_floor") for curve in found]
        figure: Figure | None = ratios_of(analysis, found, ratios, "learned error / floor of counting")
    else:
        looks = [("ratio_to_floor", "learned", BLUE, ""), ("published_ratio_to_floor", "published", PINK, "")]
        figure = _by_curve(analysis, looks, "error / floor of counting", log_x=False, reference=1)
    caption = "Learned error in units of the floor: 1 is as good as counting can be expected to be, below 1 is better."
    return _picture("ratio", "Ratio to the floor", caption, figure, not analysis.over_x or _few(found))


def _collapse(analysis: Analysis) -> Picture | None:
    found = [curve for curve in analysis.curves if curve.has("recovery_l1") and curve.has("samples_per_half_norm")]
    if not found:
        return None
    figure, (axes,) = _overlay(analysis, found, 1)
    lines = _lines(analysis, found, "recovery_l1", "samples_per_half_norm")
    x = np.concatenate([line.x for line in lines])
    reach = np.geomspace(x.min() / 1.3, x.max() * 1.3, 50)
    counting = np.sqrt(2 / (np.pi * reach))
    means = [mean.mean for line in lines for mean in line.means if mean is not None and mean.mean > 0]
    if not means:
        return None
    low, high = min(*means, counting[-1]), max(means)
    frame = {"xlim": (reach[0], reach[-1]), "ylim": (low / 1.4, min(max(high, counting[0]), 2) * 1.4)}
    axes.set(xscale="log", yscale="log", **frame)
    _draw_over(axes, lines)
    axes.set(**frame, ylabel="learned l1 error", xlabel="samples N / half-norm")
    axes.plot(reach, counting, color=BLACK, lw=1.2, ls="--", zorder=1)
    _log_ticks(axes, "x")
    _log_ticks(axes, "y")
    formula = "dashed: counting, \u221a(2 / \u03c0x)"
    axes.text(0.97, 0.95, formula, transform=axes.transAxes, ha="right", va="top", fontsize=9.5)
    _name_lines(axes, lines)
    caption = (
        "Error over N / half-norm, the samples per effective edge: worlds of any size fall on the dashed line of "
        "counting, sqrt(2 / (pi x)), where nothing but sampling noise is left."
    )
    return Picture("collapse", "Collapse over N / half-norm", caption, figure, _few(found))


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
                law, row = fit.law, found.index(fit.curve) + _spread(list(FITTED).index(fit.measure), len(FITTED))
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
        by_curve = _by_curve(analysis, looks, "share of edges", log_x=False)
        return _picture("support", "Support precision and recall", caption, by_curve)
    figure, both = _overlay(analysis, found, 2)
    sides = [_lines(analysis, found, name) for name in names]
    lowest = min(mean.mean for lines in sides for line in lines for mean in line.means if mean)
    for axes, lines, name in zip(both, sides, names, strict=True):
        axes.set(ylim=(-0.03 if lowest < 0.5 else 0.47, 1.03))
        _draw_over(axes, lines, dodge=True)
        axes.set(xlabel=analysis.words(analysis.config.x), ylabel=analysis.words(name))
    _name_lines(both[1], sides[1])
    return Picture("support", "Support precision and recall", caption, figure, _few(found))


def _capacity(analysis: Analysis) -> Picture | None:
    names = CAPACITY_MEASURES
    found = [curve for curve in analysis.curves if all(map(curve.has, (*names, "parameters_per_edge")))]
    if not found or not analysis.config.capacity:
        return None
    figure, both = _overlay(analysis, found, 2)
    sides = [_lines(analysis, found, name, "parameters_per_edge") for name in names]
    best = max((mean for line in sides[1] for mean in line.means if mean), key=lambda mean: mean.mean)
    for axes, lines, word in zip(both, sides, ("bits held", "bits per parameter"), strict=True):
        if positive := [mean.mean for line in lines for mean in line.means if mean and mean.mean > 0]:
            axes.set(yscale="log", ylim=(min(positive) / 1.6, max(positive) * 1.9))
        _draw_over(axes, lines)
        if axes.get_yscale() == "log":
            _log_ticks(axes, "y")
        axes.set(xlabel="parameters per edge", ylabel=word)
    both[1].axhline(best.mean, color=BLACK, lw=1, ls="--", zorder=1)
    both[1].annotate(
        f"plateau {digits(best.mean)}", (0.98, best.mean), (0, 4), xycoords=("axes fraction", "data"),
        textcoords="offset points", ha="right", fontsize=9,
    )  # fmt: skip
    _name_lines(both[1], sides[1])
    caption = (
        "What models of different size know about the world; the dashed plateau is the largest mean, "
        f"{shown(best)} bits per parameter."
    )
    return Picture("capacity", "Capacity", caption, figure, _few(found))


def _held_out_errors(analysis: Analysis) -> Picture | None:
    found = [curve for curve in analysis.curves if curve.has("heldout_l1")]
    if not analysis.over_x:
        looks = [(name, word, color, "") for name, word, color, _ in reversed(HELD_OUT_ERRORS)]
        figure = _by_curve(analysis, looks, "l1 error, held-out", log_x=True)
    else:
        figure = multiples(analysis, found, HELD_OUT_ERRORS, "l1 error, held-out")
    caption = (
        "Error against the held-out part of the file, which the trained part itself does not meet (the whole trained "
        "part): the lower the better."
    )
    return _picture("heldout_error", "Held-out error", caption, figure)


def _likelihood(analysis: Analysis, looks: Sequence[Look], title: str, what: str) -> Picture | None:
    main = looks[-1][0]
    found = [curve for curve in analysis.curves if curve.has(main)]
    if analysis.over_x:
        figure = multiples(analysis, found, looks, "log-likelihood per edge, nats", log_y=False)
    else:
        upright = [(name, word, color, "") for name, word, color, _ in reversed(looks)]
        figure = _by_curve(analysis, upright, "log-likelihood per edge, nats", log_x=False)
    return _picture(main, title, f"Mean log-likelihood {what}: the higher the better.", figure)


def _picture(name: str, title: str, caption: str, figure: "Figure | None", bars: bool = True) -> Picture | None:
    return None if figure is None else Picture(name, title, caption, figure, bars)


def _few(found: Sequence[Curve]) -> bool:
    return len(found) <= MAX_NAMED


def _by_curve(
    analysis: Analysis, looks: Sequence[Look], x_label: str, *, log_x: bool, reference: float | None = None
) -> "Figure | None":
    """Where every curve is one point: a row each, a dot per measure, the main measure first."""
    rows = [curve for curve in analysis.curves if curve.has(looks[0][0])][:MAX_DOT_ROWS]
    looks = [look for look in looks if any(curve.has(look[0]) for curve in rows)]
    if not rows:
        return None
    figure, (axes,) = dot_plot([[curve.label for curve in rows]])
    if log_x:
        axes.set_xscale("log")
    for nth, (name, _, color, _) in enumerate(looks):
        for row, curve in enumerate(rows):
            if (mean := curve.means(name)[0]) is not None:
                dot(axes, mean, row + _spread(nth, len(looks)), color)
    if reference is not None:
        axes.axvline(reference, color=BLACK, lw=1, ls="--", zorder=0)
    axes.set_xlabel(x_label)
    if log_x:
        _log_ticks(axes, "x")
    legend_above(figure, [[(word, color, "", "o") for _, word, color, _ in looks]])
    return figure


# ------------------------------------------------------------------------------------------------- kinds of figure


def multiples(
    analysis: Analysis, found: Sequence[Curve], looks: Sequence[Look], y_label: str, *, log_y: bool = True
) -> "Figure | None":
    """Panels over the study's x: one per curve with a line per measure, or, of many curves, one per group.

    Args:
        analysis: for names and what is fixed along the curves.
        found: the curves; None is returned if there is none.
        looks: the measures, the main one last.
        y_label: of every y axis.
        log_y: a logarithmic one, shared by all panels; else each panel has its own.
    """
    looks = [look for look in looks if any(curve.has(look[0]) for curve in found)]
    if not found or not looks:
        return None
    if len(found) > MAX_PANELS:
        panels, entries = _grouped_panels(analysis, found, looks)
        return panels_of(analysis, panels, entries, y_label, log_y=log_y)
    entries = [(word, color, style, "") for _, word, color, style in reversed(looks)]
    panels = [(curve.label, [line_of(curve, *look) for look in looks if curve.has(look[0])]) for curve in found]
    figure = panels_of(analysis, panels, entries, y_label, log_y=log_y)
    if looks[-1][0] == "recovery_l1":
        _write_exponents(analysis, found, figure.axes[: len(found)])
    return figure


def _grouped_panels(
    analysis: Analysis, found: Sequence[Curve], looks: Sequence[Look]
) -> tuple[list[tuple[str, list[Line]]], list[Entry]]:
    """The main measure of many curves, and the floor: a panel per group, within it a shade per curve."""
    main, floors = looks[-1], [look for look in looks if look[0] == "count_floor_l1"]
    field, groups = _groups(found, MAX_PANELS)
    names = {id(curve): analysis.label({**curve.key, field: None} if field else curve.key) for curve in found}
    known = list(dict.fromkeys(names.values()))
    shade = dict(zip(known, _shades(len(known)), strict=True))
    panels = []
    for value, members in groups:
        lines = [line_of(curve, *look) for look in floors for curve in members]
        lines += [line_of(curve, main[0], "", shade[names[id(curve)]], "-") for curve in members]
        panels.append((analysis.study.name if field is None else analysis.setting_words(field, value), lines))
    if len(known) <= MAX_NAMED:
        entries: list[Entry] = [(f"{main[1]}, {name}", color, "-", "") for name, color in shade.items()]
    else:
        entries = [(f"{main[1]}, a shade for each of {len(known)}", shade[known[0]], "-", "")]
    return panels, entries + [(word, color, style, "") for _, word, color, style in floors]


def panels_of(
    analysis: Analysis,
    panels: Sequence[tuple[str, Sequence[Line]]],
    entries: Sequence[Entry],
    y_label: str,
    *,
    log_y: bool,
) -> "Figure":
    """Titled panels of lines over the study's x, with one legend above."""
    from matplotlib.ticker import MaxNLocator

    lines = [line for _, drawn in panels for line in drawn]
    rows = _legend_rows([*entries, *_hollow(analysis, [line.filled[line.drawable] for line in lines])])
    figure, all_axes = _panels(len(panels), share_x=True, share_y=log_y, legend_rows=len(rows))
    legend_above(figure, rows)
    if log_y:
        means = np.array([mean.mean for line in lines for mean in line.means if mean is not None and mean.mean > 0])
        all_axes[0].set(yscale="log", ylim=(means.min() / 1.6, means.max() * 1.35))
    _scale_x(all_axes[0], lines)
    columns = _num_columns(len(panels))
    for i, (axes, (title, drawn)) in enumerate(zip(all_axes, panels, strict=True)):
        thin = sum(line.style == "-" for line in drawn) > MAX_NAMED
        for line in drawn:
            _draw_line(axes, line, thin=thin)
        if log_y:
            _log_ticks(axes, "y")
        else:
            axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
        most = int(axes.get_position().width * WIDTH / LETTER)
        axes.set_title(_short(title, most), loc="left", fontsize=9.5)
        if i + columns >= len(all_axes):  # nothing below it
            axes.xaxis.set_tick_params(labelbottom=True)
            axes.set_xlabel(analysis.words(analysis.config.x))
        if i % columns == 0:
            axes.set_ylabel(y_label)
    return figure


def ratios_of(
    analysis: Analysis, found: Sequence[Curve], ratios: Sequence[Sequence[Interval | None]], label: str
) -> "Figure":
    """Ratios along curves, all over one another, with a line at 1; a row each where every curve is one point."""
    if not analysis.over_x:
        rows = [(curve.label, ratio[0]) for curve, ratio in zip(found, ratios, strict=True)][:MAX_DOT_ROWS]
        figure, (axes,) = dot_plot([[name for name, _ in rows]], legend=False)
        for row, (_, ratio) in enumerate(rows):
            if ratio is not None:
                dot(axes, ratio, row, BLUE)
        axes.axvline(1, color=BLACK, lw=1, ls="--", zorder=0)
        axes.set_xlabel(label)
        return figure
    figure, (axes,) = _overlay(analysis, found, 1)
    colors = [color for color, _ in _curve_colors(analysis, found)]
    lines = [
        Line(curve.label, color, "-", curve.x, list(ratio), curve.in_range)
        for curve, ratio, color in zip(found, ratios, colors, strict=True)
    ]
    _scale_ratio(axes, [mean for line in lines for mean in line.means if mean is not None], bars=_few(found))
    _draw_over(axes, lines, dodge=True)
    if axes.get_yscale() == "log":
        _log_ticks(axes, "y")
    axes.axhline(1, color=BLACK, lw=1, ls="--", zorder=1)
    axes.set(ylabel=label, xlabel=analysis.words(analysis.config.x))
    _name_lines(axes, lines)
    return figure


def _scale_ratio(axes: "Axes", means: Sequence[Interval], *, bars: bool) -> None:
    """A range that holds the means and 1, and the bars, if drawn, as far as they do not dwarf the means."""
    lowest, highest = min(mean.mean for mean in means), max(mean.mean for mean in means)
    if lowest > 0 and highest / lowest > 8:
        axes.set(yscale="log", ylim=(min(lowest / 1.3, 0.8), max(highest * 1.3, 1.25)))
        return
    low, high = min(lowest, 1), max(highest, 1)
    span = max(high - low, 0.05)
    ends = [end for mean in means for end in (mean.low, mean.high) if bars and math.isfinite(end)]
    low = max(min([low, *ends]), low - 0.8 * span)
    high = min(max([high, *ends]), high + 0.8 * span)
    axes.set_ylim(low - 0.08 * span, high + 0.08 * span)


def _overlay(analysis: Analysis, found: Sequence[Curve], num: int) -> tuple["Figure", list["Axes"]]:
    """Panels for all curves over one another: room for their names at the right, or, of many, a legend of groups."""
    entries = _hollow(analysis, [curve.in_range for curve in found])
    right = 0.2
    if len(found) > MAX_NAMED:
        named = {name: color for color, name in _curve_colors(analysis, found) if name}
        entries = [*((_short(name, 40), color, "-", "") for name, color in named.items()), *entries]
    elif len(found) > 1:
        right = 0.25 + _width([_short(curve.label, MAX_NAME) for curve in found])
    rows = _legend_rows(entries)
    figure, all_axes = _panels(num, right=right, legend_rows=len(rows))
    legend_above(figure, rows)
    return figure, all_axes


def _lines(analysis: Analysis, found: Sequence[Curve], name: str, over: str | None = None) -> list[Line]:
    colors = [color for color, _ in _curve_colors(analysis, found)]
    return [line_of(curve, name, curve.label, color, "-", over) for curve, color in zip(found, colors, strict=True)]


def _draw_over(axes: "Axes", lines: Sequence[Line], *, dodge: bool = False) -> None:
    """Draw all curves in one panel, on an x axis that holds them; ``dodge`` keeps their bars off one another."""
    _scale_x(axes, lines)
    thin = len(lines) > MAX_NAMED
    for i, line in enumerate(lines):
        _draw_line(axes, line, thin=thin, shift=0.007 * (i - (len(lines) - 1) / 2) if dodge and not thin else 0.0)


def _panels(
    num: int, *, share_x: bool = False, share_y: bool = False, right: float = 0.15, legend_rows: int
) -> tuple["Figure", list["Axes"]]:
    """A figure of so many panels; margins in inches, so that text of any length has its room."""
    from matplotlib.figure import Figure

    columns = _num_columns(num)
    rows = math.ceil(num / columns)
    panel = {1: 3.4, 2: 2.7, 3: 2.0}[columns]
    left, top, bottom = 0.72, 0.3 + _legend_height(legend_rows), 0.52
    gap_x, gap_y = 0.25 if share_y else 0.65, 0.42
    height = top + bottom + rows * panel + (rows - 1) * gap_y
    figure = Figure(figsize=(WIDTH, height), dpi=130)
    width = (WIDTH - left - right - (columns - 1) * gap_x) / columns
    figure.subplots_adjust(
        left=left / WIDTH, right=1 - right / WIDTH, top=1 - top / height, bottom=bottom / height,
        wspace=gap_x / width, hspace=gap_y / panel,
    )  # fmt: skip
    grid = figure.subplots(rows, columns, sharex=share_x, sharey=share_y, squeeze=False)
    for axes in grid.flat:
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=9)
        axes.xaxis.label.set_fontsize(10)
        axes.yaxis.label.set_fontsize(10)
        axes.grid(color="#eeeeee", lw=0.7)
        axes.set_axisbelow(True)
    for axes in grid.flat[num:]:
        axes.set_visible(False)
    return figure, list(grid.flat[:num])


def _num_columns(num_panels: int) -> int:
    return num_panels if num_panels <= 2 else 2 if num_panels == 4 else 3


def dot_plot(groups: Sequence[Sequence[str]], *, legend: bool = True) -> tuple["Figure", list["Axes"]]:
    """Groups of rows below one another, first row at the top, the rows' names at the left."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    names = [_short(name, 52) for group in groups for name in group]
    left, right, top, bottom, gap = 0.3 + _width(names), 0.25, 0.15 + _legend_height(legend), 0.52, 0.75
    heights = [(0.42 if len(names) <= 12 else 0.33) * len(group) + 0.2 for group in groups]
    height = top + bottom + sum(heights) + gap * (len(groups) - 1)
    figure = Figure(figsize=(WIDTH, height), dpi=130)
    found, y = [], height - top
    for group, tall in zip(groups, heights, strict=True):
        y -= tall
        axes = figure.add_axes((left / WIDTH, y / height, (WIDTH - left - right) / WIDTH, tall / height))
        y -= gap
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.set_yticks(range(len(group)), [_short(name, 52) for name in group], fontsize=9.5)
        axes.set_ylim(len(group) - 0.45, -0.55)
        axes.tick_params(axis="y", length=0)
        axes.tick_params(axis="x", labelsize=9)
        axes.xaxis.set_major_locator(MaxNLocator(7, steps=[1, 2, 5, 10]))
        axes.xaxis.label.set_fontsize(10)
        axes.grid(axis="x", color="#eeeeee", lw=0.7)
        axes.set_axisbelow(True)
        found.append(axes)
    return figure, found


# ---------------------------------------------------------------------------------------------------------- strokes


def line_of(curve: Curve, name: str, label: str, color: str, style: str, over: str | None = None) -> Line:
    """One measure of a curve; over another quantity than the curve's own, of the points that have it."""
    if over is None:
        return Line(label, color, style, curve.x, curve.means(name), curve.in_range)
    places = [point.mean(over) for point in curve.points]
    order = sorted((place.mean, i) for i, place in enumerate(places) if place is not None)
    chosen = [i for _, i in order]
    means = curve.means(name)
    return Line(
        label, color, style, np.array([x for x, _ in order]), [means[i] for i in chosen], curve.in_range[chosen]
    )


def _draw_line(axes: "Axes", line: Line, *, thin: bool = False, shift: float = 0.0) -> None:
    """Means joined by a line, with their intervals; points outside fits are hollow, references have no markers.

    Args:
        axes: with its scales and ranges set.
        line: what is drawn.
        thin: one of very many, and so without bars.
        shift: to the right, as a share of the axis.
    """
    log = axes.get_yscale() == "log"
    shown = [(x, mean, bool(filled)) for x, mean, filled in zip(line.x, line.means, line.filled, strict=True) if mean]
    shown = [(x, mean, filled) for x, mean, filled in shown if mean.mean > 0 or not log]
    if not shown:
        return
    x = np.array([x for x, _, _ in shown])
    mean, low, high = (np.array([getattr(mean, end) for _, mean, _ in shown]) for end in ("mean", "low", "high"))
    filled = np.array([filled for _, _, filled in shown])
    if line.style != "-":
        axes.plot(x, mean, color=line.color, lw=1.1, ls=line.style, zorder=4.5)
        return
    if shift:
        left, right = axes.get_xlim()
        x = x * (right / left) ** shift if axes.get_xscale() == "log" else x + (right - left) * shift
    axes.plot(x, mean, color=line.color, lw=0.9 if thin else 1.4, alpha=0.75 if thin else 1, zorder=3)
    if not thin:  # an end at 0 or below has no place on a logarithmic axis: the bar then leaves the frame
        low = np.maximum(low, mean / 1000) if log else low
        axes.vlines(x, low, high, color=line.color, lw=0.9, alpha=0.6, zorder=3)
    size = 9 if thin else 20
    axes.scatter(x[filled], mean[filled], s=size, color=line.color, lw=0, zorder=4)
    axes.scatter(x[~filled], mean[~filled], s=size, facecolor="white", edgecolor=line.color, lw=1, zorder=4)


def dot(axes: "Axes", interval: Interval, y: float, color: str) -> None:
    """A mean with its interval, in a row of a dot plot."""
    if not (math.isnan(interval.low) or math.isnan(interval.high)):
        # An end at infinity, or at 0 or below on a logarithmic axis, has no place: the bar then leaves the frame.
        least, most = (interval.mean / 1000, math.inf) if axes.get_xscale() == "log" else (interval.mean - 10, math.inf)
        low, high = max(interval.low, least), min(interval.high, most, interval.mean + 10)
        axes.hlines(y, low, high, color=color, lw=2, alpha=0.55)
    axes.scatter([interval.mean], [y], s=26, color=color, lw=0, zorder=3)


def _scale_x(axes: "Axes", lines: Sequence[Line]) -> None:
    """Logarithmic where the values are positive and span a factor of 4 or more."""
    x = np.concatenate([line.x for line in lines])
    if x.size and x.min() > 0 and x.max() / x.min() >= 4:
        margin = (x.max() / x.min()) ** 0.04
        axes.set(xscale="log", xlim=(x.min() / margin, x.max() * margin))
        _log_ticks(axes, "x")


def _log_ticks(axes: "Axes", which: str) -> None:
    """Plain numbers where the range is short, powers of ten where it is long."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axis = axes.xaxis if which == "x" else axes.yaxis
    low, high = axes.get_xlim() if which == "x" else axes.get_ylim()
    if high / low >= 200:
        axis.set_major_locator(LogLocator(numticks=7))
        axis.set_major_formatter(FuncFormatter(lambda value, _: _power(value)))
    else:
        axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high / low < 40 else (1, 3)))
        axis.set_major_formatter(FuncFormatter(lambda value, _: _tick(value)))
    axis.set_minor_locator(NullLocator())


def _power(value: float) -> str:
    """10\u2076, in plain text: mathematical text takes most of a figure's time, and is torn apart in SVG."""
    return "10" + str(round(math.log10(value))).translate(_RAISED)


def _tick(value: float) -> str:
    if value >= 1e6:
        return f"{value / 1e6:g}M"
    return f"{value / 1e3:g}k" if value >= 1e3 else f"{value:g}"


def _write_exponents(analysis: Analysis, found: Sequence[Curve], all_axes: Sequence["Axes"]) -> None:
    """The learned exponent, in the corner that a falling curve leaves free."""
    for axes, curve in zip(all_axes, found, strict=True):
        law = analysis.exponent(curve, "recovery_l1")
        text, falls = "no exponent:\nsee the table", True
        if law is not None:
            to = f"\nto a plateau of {digits(law.offset)}" if law.offset > 0 else ""
            text = f"learned exponent\n{digits(law.exponent, law.exponent_low, law.exponent_high)}{to}"
            falls = law.exponent < 0
        axes.text(
            0.04, 0.05 if falls else 0.95, text, transform=axes.transAxes, fontsize=8.5, color=BLUE if law else GREY,
            va="bottom" if falls else "top",
        )  # fmt: skip


def _hollow(analysis: Analysis, filled: Sequence[np.ndarray]) -> list[Entry]:
    """What hollow markers mean, where there are some."""
    if all(points.all() for points in filled):
        return []
    return [(f"N < {analysis.config.fit_from:g} \u00d7 edges: in no fit", GREY, "", "hollow")]


def _legend_rows(entries: Sequence[Entry]) -> list[list[Entry]]:
    """The entries of a legend, broken into rows as wide as a figure."""
    rows: list[list[Entry]] = []
    room = 0.0
    for entry in entries:
        width = 0.43 + 0.063 * len(entry[0])  # inches at 9 points
        if not rows or room < width:
            rows.append([])
            room = WIDTH - 0.05
        rows[-1].append(entry)
        room -= width
    return rows


def _legend_height(num_rows: int) -> float:
    return 0.12 + 0.21 * num_rows if num_rows else 0.0


def legend_above(figure: "Figure", rows: Sequence[Sequence[Entry]]) -> None:
    """Rows at the top: names, each with its colour, line style and marker."""
    from matplotlib.lines import Line2D

    height = figure.get_figheight()
    for i, row in enumerate(rows):
        handles = [
            Line2D(
                [], [], color=color, ls=style or "none", lw=1.6, marker="o" if marker or style == "-" else "",
                markersize=4.5, markerfacecolor="white" if marker == "hollow" else color, label=name,
            )
            for name, color, style, marker in row
        ]  # fmt: skip
        figure.legend(
            handles=handles, loc="upper left", bbox_to_anchor=(0.008, 1 - (0.02 + 0.21 * i) / height), ncols=len(row),
            frameon=False, fontsize=9, handlelength=1.8, columnspacing=1.3, handletextpad=0.5, borderaxespad=0.1,
        )  # fmt: skip


def _name_lines(axes: "Axes", lines: Sequence[Line]) -> None:
    """Names beside the ends of a few lines, pushed apart; one line alone needs none, and many have a legend."""
    if not 1 < len(lines) <= MAX_NAMED:
        return
    ends = []
    for line in lines:
        last = [(x, mean.mean) for x, mean in zip(line.x, line.means, strict=True) if mean is not None]
        if last:
            ends.append((axes.transData.transform(last[-1])[1], line))
    ends.sort(key=lambda end: end[0])
    box = axes.get_window_extent()
    heights = _apart([height for height, _ in ends], 11.5 * axes.figure.dpi / 72, box.y0, box.y1)
    for height, (_, line) in zip(heights, ends, strict=True):
        y, name = (height - box.y0) / box.height, _short(line.label, MAX_NAME)
        axes.text(1.015, y, name, transform=axes.transAxes, color=line.color, fontsize=9, va="center")


def _apart(heights: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Ascending heights moved as little as it takes to stand a gap apart, within the frame if they fit."""
    placed: list[float] = []
    for height in heights:
        placed.append(max(height, placed[-1] + gap) if placed else max(height, low))
    over = placed[-1] - high if placed else 0
    for i in reversed(range(len(placed))):
        if over > 0:
            limit = placed[i + 1] - gap if i + 1 < len(placed) else high
            placed[i] = min(placed[i], limit)
    return placed


def _curve_colors(analysis: Analysis, found: Sequence[Curve]) -> list[tuple[str, str]]:
    """Colour and name for each curve: its own while they are few, then its group's, then none."""
    if len(found) <= MAX_NAMED:
        return [(CURVE_COLORS[i], curve.label) for i, curve in enumerate(found)]
    field, groups = _groups(found, MAX_NAMED)
    if field is None:
        return [(BLUE, "")] * len(found)
    shades = CURVE_COLORS if field == "variant" else _shades(len(groups))
    chosen = {
        id(curve): (shade, analysis.setting_words(field, value))
        for shade, (value, members) in zip(shades, groups, strict=False)
        for curve in members
    }
    return [chosen[id(curve)] for curve in found]


def _groups(found: Sequence[Curve], most: int) -> tuple[str | None, list[tuple[object, list[Curve]]]]:
    """Curves by the first of their fixed fields that makes at most so many groups; all in one where none does."""
    for field in found[0].key:
        groups: dict[str, tuple[object, list[Curve]]] = {}
        for curve in found:
            value = curve.key.get(field)
            groups.setdefault(repr(value), (value, []))[1].append(curve)
        if 1 < len(groups) <= most:
            return field, list(groups.values())
    return None, [(None, list(found))]


def _shades(num: int) -> list[str]:
    """Colours in order, dark to light, the lightest still seen on white."""
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    return [to_hex(colormaps["viridis"](place)) for place in np.linspace(0, 0.85, num)]


def _fitted_curves(fits: Sequence[Fit], over: str) -> list[Curve]:
    return list(dict.fromkeys(fit.curve for fit in fits if fit.law and fit.over == over))[:MAX_DOT_ROWS]


def _spread(place: int, num: int) -> float:
    """Where the dots of one row stand, around its middle."""
    return 0.5 * ((place + 0.5) / num - 0.5)


def _width(names: Sequence[str]) -> float:
    """Inches that the longest of some names takes."""
    return LETTER * max(map(len, names))


def _short(name: str, most: int) -> str:
    return name if len(name) <= most else f"{name[: most - 1]}\u2026"
