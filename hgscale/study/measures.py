"""Which measures the cells of a study have: those of its task, and what is made of them."""

import dataclasses

from hgscale import verbs
from hgscale.errors import ConfigError
from hgscale.plugins import imported
from hgscale.study.results import FINISHED, Row, Study
from hgscale.train.reports import Derived, Measures

DEFAULT_TASK = next(row.name for row in verbs.VERBS if row.trained)
DERIVED: dict[str, Derived] = {
    "core_minutes": lambda summary: None if (cpu_s := summary.get("cpu_s")) is None else cpu_s / 60,
}
"""Numbers of a cell of any task that its summary does not hold."""


def measures_of(study: Study) -> Measures:
    """What the task of a study hands to reports.

    Raises:
        ConfigError: if the study's task is no verb that trains.
    """
    older = (row.name for row in verbs.VERBS if row.trained and study.config.get(row.name))  # before there was ``task``
    name = study.config.get("task") or next(older, DEFAULT_TASK)
    where = f"{study.directory / 'study.yaml'}: task"
    found = imported(verbs.trained(str(name), where).measures, where)
    if not isinstance(found, Measures):
        raise ConfigError(f"{where}={name}: its measures are a {type(found).__name__}; a Measures is wanted")
    base = study.config.get("base")
    if found.own is None or not isinstance(base, dict):
        return found
    main, more = found.own(base)
    return dataclasses.replace(
        found, words={**found.words, **main, **more}, main=(*found.main, *main), more=(*found.more, *more)
    )


def enriched(row: Row, measures: Measures, published: dict[str, float]) -> Row:
    """A finished row with what follows from its summary, and what others have published of its variant."""
    if row.status != FINISHED:
        return row
    summary = dict(row.summary)
    if row.variant in published and measures.published:
        summary[measures.published] = published[row.variant]
    derived = {**measures.derived, **DERIVED}
    more = {name: value for name, make in derived.items() if (value := make(summary)) is not None}
    return dataclasses.replace(row, summary=more | summary)
