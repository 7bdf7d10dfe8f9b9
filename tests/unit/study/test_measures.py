"""What reports say is the task's: one that the package does not know is reported like those that it knows."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hgscale import verbs
from hgscale.errors import ConfigError
from hgscale.study.analysis import analyse
from hgscale.study.measures import measures_of
from hgscale.study.report import ReportConfig, report
from hgscale.study.results import read
from tests.unit.study.test_results import write_study


@pytest.fixture(autouse=True)
def toy(monkeypatch: pytest.MonkeyPatch) -> None:
    """A third verb that trains."""
    places = {name: f"tests.unit.study.toy:{name.upper()}" for name in ("task", "work", "measures", "costs")}
    task = verbs.Trained(**places)
    row = verbs.Verb("pick", "tests.unit.study.toy", "PickConfig", "pick apples", "pick", trained=task)
    monkeypatch.setattr(verbs, "VERBS", (*verbs.VERBS, row))


def apples(rains: tuple[int, ...] = (100, 200, 400, 800), **more: Any) -> list[dict[str, Any]]:
    cells = []
    for variant, factor in (("early", 1.0), ("late", 2.0)):
        for rain in rains:
            for seed in range(3):
                noise = float(np.exp(0.02 * np.random.default_rng([seed, rain]).standard_normal()))
                summary = {
                    "apples": factor * rain * noise, "ripe": rain * noise / 2, "rain": rain, "trees": rain / 20,
                    "share": 0.5, "pears": 1.0, "bits": 2.0, "orchard": f"ours {seed}", "fruit": "apples",
                }  # fmt: skip
                cell = {"variant": variant, "axes": {"weather.rain": rain}, "seed": seed, "summary": summary | more}
                cells.append(cell)
    return cells


def test_a_task_of_somebody_else_is_reported_with_its_words_figures_and_sentences(tmp_path: Path) -> None:
    study = write_study(tmp_path / "orchard", apples(), task="pick", analysis={"capacity": True})
    result = report(ReportConfig(study=[str(study)]))
    names = ["yield", "share_of_rain", "law", "growth", "shares", "held"]
    assert [path.name for path in result.figures] == [f"{name}.png" for name in names]
    table, page = result.table_md.read_text(), result.page.read_text()
    head = "| curve | rain, mm | apples picked | least ripe | largest ripe | bits |"
    assert head in table
    assert "rain, mm | picking | ripening | plateau" in table.replace("over | ", "rain, mm | ")
    assert "Exponents of yield = plateau + a x^b" in table
    assert "Fits use points with R \u2265 10 \u00d7 trees." in table
    assert "Every point: what else is known" in table
    assert "pears beside them" in table
    assert "l1" not in table + page
    assert "Apples: " in result.text()
    assert "largest ripe" not in result.text()
    assert "Apples, late, rain, mm = 100 minus early, rain, mm = 100, paired by seed: " in result.text()
    assert "Apples are counted by hand." in page
    assert "Pears, too." in page
    assert "Nuts." not in page
    assert "At most 2.00." in page
    assert "Ripening, and exponents over anything but rain, mm, are fitted without plateau." in page
    assert "picking exponent" in page
    assert result.metrics["apples_max"] == pytest.approx(1600, rel=0.05)
    assert result.metrics["exponent/rain/picking/early"] == pytest.approx(1, abs=0.05)


def test_what_is_optional_is_left_out_unless_it_is_asked_for(tmp_path: Path) -> None:
    result = report(ReportConfig(study=[str(write_study(tmp_path / "orchard", apples(), task="pick"))]))
    assert "bits" not in result.table_md.read_text() + result.text()
    assert "held.png" not in [path.name for path in result.figures]


def test_a_task_of_somebody_else_is_told_where_every_curve_is_one_point(tmp_path: Path) -> None:
    settings = {"task": "pick", "analysis": {"published": {"late": 700.0}}}
    result = report(ReportConfig(study=[str(write_study(tmp_path / "orchard", apples((400,)), **settings))]))
    assert "| curve | rain, mm | apples picked | others apples |" in result.table_md.read_text()
    assert "by rain, in rows" in result.page.read_text()


def test_two_studies_of_a_task_of_somebody_else_are_compared_by_its_headline(tmp_path: Path) -> None:
    studies = [str(write_study(tmp_path / name, apples(), task="pick")) for name in ("one", "other")]
    result = report(ReportConfig(study=studies))
    assert [path.name for path in result.figures[-2:]] == ["compare-other-error.png", "compare-other-ratio.png"]
    page = result.page.read_text()
    assert "one, then other." in page
    assert "the apples picked of other is 1.00 times that of one" in page
    assert "above 1 other is better" in page


def test_cells_that_do_not_compare_are_refused_by_their_task(tmp_path: Path) -> None:
    study = write_study(tmp_path / "orchard", apples(fruit="pears") + apples((50,)), task="pick")
    with pytest.raises(ConfigError, match="orchard: two kinds of fruit do not compare"):
        analyse(read(study))


def test_studies_of_two_tasks_are_not_compared(tmp_path: Path) -> None:
    first = write_study(tmp_path / "one", apples((400,)), task="pick")
    other = write_study(tmp_path / "other", apples((400,)), analysis={"x": "weather.rain"})
    with pytest.raises(ConfigError, match="one and other are told by apples and by recovery_l1"):
        report(ReportConfig(study=[str(first), str(other)]))


@pytest.mark.parametrize(
    ("config", "headline"),
    [
        ({}, "recovery_l1"),
        ({"task": "finetune"}, "test_f1"),
        ({"finetune": {"data": {"name": "planted"}}, "base": {}}, "test_f1"),  # as written before there was ``task``
        ({"finetune": None, "base": {}}, "recovery_l1"),
        ({"task": "pick"}, "apples"),
    ],
)
def test_the_task_of_a_study_is_in_its_directory(tmp_path: Path, config: dict[str, Any], headline: str) -> None:
    assert measures_of(read(write_study(tmp_path / "s", apples((1,)), **config))).headline == headline


def test_a_study_of_a_task_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"study\.yaml: task=plant is no verb that trains; use one of pretrain, fi"):
        measures_of(read(write_study(tmp_path / "s", apples((1,)), task="plant")))


def test_published_numbers_are_refused_where_the_task_has_none(tmp_path: Path) -> None:
    settings = {"task": "finetune", "analysis": {"published": {"early": 0.5}}}
    cells = [cell | {"summary": {"test_f1": 0.5, "num_contexts": 9}} for cell in apples((1,))]
    with pytest.raises(ConfigError, match="published: this task has none"):
        analyse(read(write_study(tmp_path / "s", cells, **settings)))


def test_every_point_of_a_task_that_fits_nothing_is_in_range(tmp_path: Path) -> None:
    cells = [cell | {"summary": {"test_f1": 0.5, "num_contexts": 9}} for cell in apples((1,))]
    analysis = analyse(read(write_study(tmp_path / "s", cells, task="finetune")))
    assert [curve.in_range.tolist() for curve in analysis.curves] == [[True], [True]]
