"""What a task hands to reports: measures, words, colours and panels. ``study`` draws, fits and writes them."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

Summary = Mapping[str, Any]
Derived = Callable[[Summary], float | None]
"""A number of a cell made of those in its summary; None where one is missing."""

Color = Literal["blue", "orange", "green", "pink", "black", "grey"]


@dataclass(frozen=True)
class Look:
    """How a measure is drawn.

    Attributes:
        measure: a number of a cell.
        word: what it is called in a legend.
        color: of its line and dots.
        style: of its line, as matplotlib names it; other than "-" it is a reference, without markers.
        kept: whether it is drawn beside the main measure even where many curves share a panel.
    """

    measure: str
    word: str
    color: Color
    style: str = "-"
    kept: bool = False


@dataclass(frozen=True)
class Column:
    """A column of the short table, which has a row for each curve.

    Attributes:
        measure: a number of a cell.
        of: the mean at the largest x, the least or the largest mean along the curve, or its exponent over x.
        on_terminal: whether a terminal shows it, too.
    """

    measure: str
    of: Literal["last", "least", "largest", "exponent"] = "last"
    on_terminal: bool = True


@dataclass(frozen=True)
class Fitted:
    """A measure whose exponents are fitted.

    Attributes:
        measure: a number of a cell.
        word: what it is called in sentences about exponents.
        color: of its exponents.
        plateau_over: the quantity over which its curve may level off; its fit there may choose an offset.
    """

    measure: str
    word: str
    color: Color
    plateau_over: str | None = None


@dataclass(frozen=True)
class Density:
    """Which points enter fits: those with enough of one number for each of another.

    Attributes:
        of, per: the two numbers of a cell.
        symbol, unit: what they are called: "N", "edges".
    """

    of: str
    per: str
    symbol: str
    unit: str


@dataclass(frozen=True)
class Told:
    """A measure of which a sentence tells the largest mean.

    Attributes:
        measure: a number of a cell.
        word: the sentence's first.
        with_mean: whether its mean over all points is told, too, and both go to the tracking server.
        with_place: whether it is told where the largest is.
    """

    measure: str
    word: str
    with_mean: bool = False
    with_place: bool = True


@dataclass(frozen=True)
class Method:
    """A sentence on how numbers are made; only where cells have the measure ``where``, if one is named."""

    text: str
    where: str | None = None


@dataclass(frozen=True)
class SameData:
    """By which field of a summary cells are known to have the same data, and what those are called."""

    digest: str
    word: str
    plural: str


@dataclass(frozen=True, kw_only=True)
class Panel:
    """A figure: the name of its file, its title, and what to see in it."""

    name: str
    title: str
    caption: str


@dataclass(frozen=True, kw_only=True)
class Lines(Panel):
    """Measures over x, a panel for each curve; where every curve is one point, a row of dots for each.

    Attributes:
        looks: the measures, the main one last. Curves without that are left out.
        label: of the axis.
        log: whether it is logarithmic.
        against_x: whether the title goes on with "against" and x.
        only_in_rows: further measures of the rows.
        caption_of_rows: in place of the caption.
    """

    looks: tuple[Look, ...]
    label: str
    log: bool
    against_x: bool = False
    only_in_rows: tuple[Look, ...] = ()
    caption_of_rows: str | None = None


@dataclass(frozen=True, kw_only=True)
class Ratios(Panel):
    """A ratio along all curves in one panel, with a line at 1; or a row of dots for each curve.

    Attributes:
        looks: the ratio, and further ones in rows.
        label, label_of_rows: of the axis.
    """

    looks: tuple[Look, ...]
    label: str
    label_of_rows: str


@dataclass(frozen=True, kw_only=True)
class Collapse(Panel):
    """A measure of all curves over another quantity than x, beside a law; both axes are logarithmic.

    Attributes:
        measure, over: numbers of a cell.
        label, over_label: of the axes.
        law: the measure by the quantity.
        formula: the law in words.
        most: beyond this the axis is not drawn for the law's sake.
    """

    measure: str
    over: str
    label: str
    over_label: str
    law: Callable[[np.ndarray], np.ndarray]
    formula: str
    most: float


@dataclass(frozen=True, kw_only=True)
class Exponents(Panel):
    """The exponents of all fits; ``expected`` has a reference for some quantities, by the last part of their names."""

    expected: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Shares(Panel):
    """Measures between 0 and 1, a panel each with all curves; or a row of dots for each curve.

    Attributes:
        looks: the measures; only curves that have all are drawn.
        label: of the axis in rows.
    """

    looks: tuple[Look, ...]
    label: str


@dataclass(frozen=True, kw_only=True)
class Plateau(Panel):
    """Two measures of all curves over another quantity than x, the second with a line at its largest mean.

    Attributes:
        measures, labels: a panel each.
        over, over_label: the quantity.
        caption: ``{best}`` in it stands for the largest mean.
    """

    measures: tuple[str, str]
    labels: tuple[str, str]
    over: str
    over_label: str


@dataclass(frozen=True, kw_only=True)
class Beside:
    """The headline of two studies over one another, a panel for each curve.

    Attributes:
        reference: what is drawn beside it.
        label: of the axis.
        title: of the figure.
        caption: ``{first}`` and ``{other}`` in it stand for the studies.
    """

    reference: Look
    label: str
    title: str
    caption: str


@dataclass(frozen=True, kw_only=True)
class Measures:
    """What reports say of the cells of one task.

    Attributes:
        headline: the measure by which studies are compared.
        lower_is_better: of the headline.
        x: what curves are drawn over unless a study says otherwise: a field of the task or of the summary.
        words: what fields and numbers are called; one that is not here is shown with spaces for underscores.
        main, more: what the tables hold of each point where cells have it, in a first table and in a second.
        optional: of these, what is shown only where ``analysis`` asks for it: name of its switch -> measures.
        derived: numbers that a summary does not hold.
        published: the number that ``analysis.published`` gives, if the task has one.
        fitted: measures whose exponents are fitted, what is learned first.
        quantity: what those measure: "error".
        density: which points enter fits; None: all.
        short: columns of the short table.
        short_at_one_x: the same, where every curve is one point.
        told: extremes, in sentences; exponents are told behind the first.
        differences: the measure of which settings on the same data are told apart, in sentences.
        panels: the figures, in order.
        beside: a figure of two studies, besides the ratio of their headlines.
        methods: how the numbers are made.
        same_data: what two studies that are compared must share.
        refuse: (summaries, where) -> raises ConfigError if they do not compare.
        own: base of a study -> words of further numbers that it asks for, by name: for ``main``, and for ``more``.
    """

    headline: str
    lower_is_better: bool
    x: str
    words: Mapping[str, str]
    main: tuple[str, ...]
    more: tuple[str, ...] = ()
    optional: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    derived: Mapping[str, Derived] = field(default_factory=dict)
    published: str | None = None
    fitted: tuple[Fitted, ...] = ()
    quantity: str = "error"
    density: Density | None = None
    short: tuple[Column, ...] = ()
    short_at_one_x: tuple[Column, ...] = ()
    told: tuple[Told, ...] = ()
    differences: Told | None = None
    panels: tuple[Panel, ...] = ()
    beside: Beside | None = None
    methods: tuple[Method, ...] = ()
    same_data: SameData
    refuse: Callable[[Iterable[Summary], str], None] | None = None
    own: Callable[[Mapping[str, Any]], tuple[Mapping[str, str], Mapping[str, str]]] | None = None
