"""A task that the package does not know, as reports see it: apples of trees."""

from hgscale.errors import ConfigError
from hgscale.train.reports import (
    Beside,
    Collapse,
    Column,
    Density,
    Exponents,
    Fitted,
    Lines,
    Look,
    Measures,
    Method,
    Plateau,
    Ratios,
    SameData,
    Shares,
    Told,
)

APPLES = Look("apples", "picked", "green")
RIPE = Look("ripe", "ripe ones", "orange", "--", kept=True)


def refuse(summaries, where):
    if len({summary["fruit"] for summary in summaries}) > 1:
        raise ConfigError(f"{where}: two kinds of fruit do not compare")


MEASURES = Measures(
    headline="apples",
    lower_is_better=False,
    x="rain",
    words={"apples": "apples picked", "rain": "rain, mm", "pears": "pears beside them", "share": "share of the ripe"},
    main=("apples", "ripe", "share"),
    more=("pears", "bits"),
    optional={"capacity": ("bits",)},
    derived={"per_rain": lambda summary: summary["apples"] / summary["rain"]},
    published="others_apples",
    fitted=(Fitted("apples", "picking", "green", plateau_over="rain"), Fitted("ripe", "ripening", "orange")),
    quantity="yield",
    density=Density("rain", "trees", "R", "trees"),
    short=(Column("apples"), Column("ripe", "least"), Column("ripe", "largest", on_terminal=False), Column("bits")),
    short_at_one_x=(Column("apples"), Column("others_apples")),
    told=(Told("apples", "Apples", with_mean=True), Told("bits", "Bits", with_place=False)),
    differences=Told("apples", "Apples"),
    panels=(
        Lines(name="yield", title="Yield", caption="More is better.", looks=(RIPE, APPLES), label="apples", log=True),
        Ratios(name="share_of_rain", title="By rain", caption="By rain.", looks=(Look("per_rain", "p", "pink"),),
               label="by rain", label_of_rows="by rain, in rows"),
        Collapse(name="law", title="Law", caption="A law.", measure="apples", over="trees", label="apples",
                 over_label="trees", law=lambda x: 3 * x, formula="dashed: 3x", most=1e9),
        Exponents(name="growth", title="Growth", caption="Growth.", expected={"rain": 1.0}),
        Shares(name="shares", title="Shares", caption="Shares.", looks=(Look("share", "share", "blue"),),
               label="share"),
        Plateau(name="held", title="Held", caption="At most {best}.", measures=("bits", "bits"), labels=("a", "b"),
                over="trees", over_label="trees"),
    ),
    beside=Beside(reference=RIPE, label="apples", title="Both orchards", caption="{first}, then {other}."),
    methods=(Method("Apples are counted by hand."), Method("Pears, too.", "pears"), Method("Nuts.", "nuts")),
    same_data=SameData("orchard", "orchard", "orchards"),
    refuse=refuse,
)  # fmt: skip
