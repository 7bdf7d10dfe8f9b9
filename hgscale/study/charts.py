"""The strokes of figures: lines, dots, panels, axes and legends.

Colours are told apart by colour-blind readers. Filled markers are points within the range of validity of fits, hollow
ones lie outside; bars are 95% intervals over seeds.
"""

import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hgscale.files import write_bytes
from hgscale.study.analysis import Analysis, Curve
from hgscale.study.fit import Interval
from hgscale.study.words import digits
from hgscale.train.reports import Color, Fitted, Look

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

REPAIR = "make room or give another --out"
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
COLORS: dict[Color, str] = {
    "blue": BLUE, "orange": ORANGE, "green": GREEN, "pink": PINK, "black": BLACK, "grey": GREY,
}  # fmt: skip
"""What the colours are that tasks name."""
CURVE_COLORS = (BLUE, "#d55e00", GREEN, PINK, "#56b4e9", "#8a6d00", BLACK, "#8250c4")
Entry = tuple[str, str, str, str]  # of a legend: name, colour, line style, marker (hollow, o or none)
_RAISED = str.maketrans("-0123456789", "\u207b\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079")


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
    pixels = io.BytesIO()
    FigureCanvasAgg(picture.figure).print_png(pixels)
    write_bytes(path, pixels.getbuffer(), REPAIR)
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


def picture_of(name: str, title: str, caption: str, figure: "Figure | None", bars: bool = True) -> Picture | None:
    return None if figure is None else Picture(name, title, caption, figure, bars)


def by_curve(
    analysis: Analysis, looks: Sequence[Look], x_label: str, *, log_x: bool, reference: float | None = None
) -> "Figure | None":
    """Where every curve is one point: a row each, a dot per measure, the main measure first."""
    rows = [curve for curve in analysis.curves if curve.has(looks[0].measure)][:MAX_DOT_ROWS]
    looks = [look for look in looks if any(curve.has(look.measure) for curve in rows)]
    if not rows:
        return None
    figure, (axes,) = dot_plot([[curve.label for curve in rows]])
    if log_x:
        axes.set_xscale("log")
    for nth, look in enumerate(looks):
        for row, curve in enumerate(rows):
            if (mean := curve.means(look.measure)[0]) is not None:
                dot(axes, mean, row + spread(nth, len(looks)), COLORS[look.color])
    if reference is not None:
        axes.axvline(reference, color=BLACK, lw=1, ls="--", zorder=0)
    axes.set_xlabel(x_label)
    if log_x:
        log_ticks(axes, "x")
    legend_above(figure, [[(look.word, COLORS[look.color], "", "o") for look in looks]])
    return figure


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
    looks = [look for look in looks if any(curve.has(look.measure) for curve in found)]
    if not found or not looks:
        return None
    if len(found) > MAX_PANELS:
        panels, entries = _grouped_panels(analysis, found, looks)
        return panels_of(analysis, panels, entries, y_label, log_y=log_y)
    entries = [(look.word, COLORS[look.color], look.style, "") for look in reversed(looks)]
    panels = [(curve.label, [look_of(curve, look) for look in looks if curve.has(look.measure)]) for curve in found]
    figure = panels_of(analysis, panels, entries, y_label, log_y=log_y)
    for fitted in analysis.task.fitted[:1]:
        if looks[-1].measure == fitted.measure:
            _write_exponents(analysis, fitted, found, figure.axes[: len(found)])
    return figure


def _grouped_panels(
    analysis: Analysis, found: Sequence[Curve], looks: Sequence[Look]
) -> tuple[list[tuple[str, list[Line]]], list[Entry]]:
    """The main measure of many curves, and what is kept: a panel per group, within it a shade per curve."""
    main, kept = looks[-1], [look for look in looks if look.kept]
    field, groups = _groups(found, MAX_PANELS)
    names = {id(curve): analysis.label({**curve.key, field: None} if field else curve.key) for curve in found}
    known = list(dict.fromkeys(names.values()))
    shade = dict(zip(known, _shades(len(known)), strict=True))
    panels = []
    for value, members in groups:
        lines = [look_of(curve, look) for look in kept for curve in members]
        lines += [line_of(curve, main.measure, "", shade[names[id(curve)]], "-") for curve in members]
        panels.append((analysis.study.name if field is None else analysis.setting_words(field, value), lines))
    if len(known) <= MAX_NAMED:
        entries: list[Entry] = [(f"{main.word}, {name}", color, "-", "") for name, color in shade.items()]
    else:
        entries = [(f"{main.word}, a shade for each of {len(known)}", shade[known[0]], "-", "")]
    return panels, entries + [(look.word, COLORS[look.color], look.style, "") for look in kept]


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
            log_ticks(axes, "y")
        else:
            axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
        most = int(axes.get_position().width * WIDTH / LETTER)
        axes.set_title(_short(title, most), loc="left", fontsize=9.5)
        if i + columns >= len(all_axes):  # nothing below it
            axes.xaxis.set_tick_params(labelbottom=True)
            axes.set_xlabel(analysis.words(analysis.x))
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
    figure, (axes,) = overlay(analysis, found, 1)
    colors = [color for color, _ in _curve_colors(analysis, found)]
    lines = [
        Line(curve.label, color, "-", curve.x, list(ratio), curve.in_range)
        for curve, ratio, color in zip(found, ratios, colors, strict=True)
    ]
    _scale_ratio(axes, [mean for line in lines for mean in line.means if mean is not None], bars=few(found))
    draw_over(axes, lines, dodge=True)
    if axes.get_yscale() == "log":
        log_ticks(axes, "y")
    axes.axhline(1, color=BLACK, lw=1, ls="--", zorder=1)
    axes.set(ylabel=label, xlabel=analysis.words(analysis.x))
    name_lines(axes, lines)
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


def overlay(analysis: Analysis, found: Sequence[Curve], num: int) -> tuple["Figure", list["Axes"]]:
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


def lines_of(analysis: Analysis, found: Sequence[Curve], name: str, over: str | None = None) -> list[Line]:
    colors = [color for color, _ in _curve_colors(analysis, found)]
    return [line_of(curve, name, curve.label, color, "-", over) for curve, color in zip(found, colors, strict=True)]


def draw_over(axes: "Axes", lines: Sequence[Line], *, dodge: bool = False) -> None:
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


def look_of(curve: Curve, look: Look) -> Line:
    """A measure of a curve as its task says that it looks."""
    return line_of(curve, look.measure, look.word, COLORS[look.color], look.style)


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
        log_ticks(axes, "x")


def log_ticks(axes: "Axes", which: str) -> None:
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


def _write_exponents(analysis: Analysis, fitted: Fitted, found: Sequence[Curve], all_axes: Sequence["Axes"]) -> None:
    """The exponent of each curve, in the corner that a falling one leaves free."""
    for axes, curve in zip(all_axes, found, strict=True):
        law = analysis.exponent(curve, fitted.measure)
        text, falls = "no exponent:\nsee the table", True
        if law is not None:
            to = f"\nto a plateau of {digits(law.offset)}" if law.offset > 0 else ""
            text = f"{fitted.word} exponent\n{digits(law.exponent, law.exponent_low, law.exponent_high)}{to}"
            falls = law.exponent < 0
        axes.text(
            0.04, 0.05 if falls else 0.95, text, transform=axes.transAxes, fontsize=8.5,
            color=COLORS[fitted.color] if law else GREY, va="bottom" if falls else "top",
        )  # fmt: skip


def _hollow(analysis: Analysis, filled: Sequence[np.ndarray]) -> list[Entry]:
    """What hollow markers mean, where there are some."""
    if all(points.all() for points in filled):
        return []
    density = analysis.task.density
    assert density is not None  # else every point is in range
    few_of_it = f"{density.symbol} < {analysis.config.fit_from:g} \u00d7 {density.unit}"
    return [(f"{few_of_it}: in no fit", GREY, "", "hollow")]


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


def name_lines(axes: "Axes", lines: Sequence[Line]) -> None:
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


def spread(place: int, num: int) -> float:
    """Where the dots of one row stand, around its middle."""
    return 0.5 * ((place + 0.5) / num - 0.5)


def _width(names: Sequence[str]) -> float:
    """Inches that the longest of some names takes."""
    return LETTER * max(map(len, names))


def _short(name: str, most: int) -> str:
    return name if len(name) <= most else f"{name[: most - 1]}\u2026"


def few(found: Sequence[Curve]) -> bool:
    return len(found) <= MAX_NAMED
