"""Two studies are compared cell by cell, on the same worlds or not at all."""

import csv
import math
from pathlib import Path

import pytest

from hgscale.errors import ConfigError
from hgscale.study import figures
from hgscale.study.analysis import analyse
from hgscale.study.compare import Comparison, compare, pictures, sentences, tables
from hgscale.study.report import ReportConfig, report
from hgscale.study.results import read
from tests.unit.study.test_results import N, law_cells, write_study


def cell(n, seed, error, digest="w", **more):
    summary = {"recovery_l1": error, "num_samples": n, "num_edges": 2, "world_digest": digest}
    return {"axes": {N: n}, "seed": seed, "summary": summary, **more}


def compared(path: Path, first: list[dict], other: list[dict]) -> Comparison:
    studies = [write_study(path / name, cells) for name, cells in (("one", first), ("other", other))]
    return compare(*(analyse(read(directory)) for directory in studies))


def test_differences_are_paired_by_seed(tmp_path):
    # Seeds differ much, the studies by the same: unpaired, the difference would drown.
    comparison = compared(
        tmp_path,
        [cell(10, 0, 0.1), cell(10, 1, 0.5), cell(10, 2, 0.9)],
        [cell(10, 2, 0.7), cell(10, 0, -0.1), cell(10, 1, 0.3)],
    )
    (pair,) = comparison.pairs
    difference = pair.difference("recovery_l1")
    assert difference.mean == pytest.approx(-0.2)
    assert (difference.low, difference.high) == pytest.approx((-0.2, -0.2))
    assert difference.num == 3
    assert pair.ratio("recovery_l1").num == 2  # a ratio is of what is above 0


def test_ratios_are_geometric_means_over_seeds(tmp_path):
    comparison = compared(tmp_path, [cell(10, 0, 0.1), cell(10, 1, 0.1)], [cell(10, 0, 0.2), cell(10, 1, 0.8)])
    ratio = comparison.pairs[0].ratio("recovery_l1")
    assert ratio.mean == pytest.approx(4.0)  # sqrt(2 x 8)
    # Student's t with one degree of freedom on ln 2 and ln 8: half the distance is ln 2, 12.706 times.
    assert ratio.high == pytest.approx(math.exp(math.log(4) + 12.7062 * math.log(2)), rel=1e-3)


def test_the_overall_ratio_is_over_the_seeds_that_every_point_has(tmp_path):
    first = [cell(n, seed, 0.1) for n in (10, 20) for seed in range(3)]
    other = [cell(10, 0, 0.2), cell(10, 1, 0.2), cell(10, 2, 0.9), cell(20, 0, 0.8), cell(20, 1, 0.8)]
    overall = compared(tmp_path, first, other).overall("recovery_l1")
    assert (overall.mean, overall.num) == (pytest.approx(4.0), 2)


def scored(seed, f1, **summary):
    """A fine-tuning's cell."""
    facts = {"test_f1": f1, "num_contexts": 9, "data_digest": "d", "leaks": ""}
    return {"axes": {"model.pairs": "together"}, "seed": seed, "summary": facts | summary}


FINE = {"task": "finetune"}


def test_fine_tunings_are_compared_by_their_f1(tmp_path):
    studies = [
        write_study(tmp_path / name, [scored(seed, f1 + 0.1 * seed) for seed in range(3)], **FINE)
        for name, f1 in (("one", 0.5), ("other", 0.6))
    ]
    comparison = compare(*(analyse(read(directory)) for directory in studies))
    assert comparison.headline == "test_f1"
    assert comparison.pairs[0].difference("test_f1").mean == pytest.approx(0.1)
    assert "one: test F1" in tables(comparison)[0].header


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [({"data_digest": "e"}, "differ in the data of cell"), ({"leaks": "head behind tail"}, "given the label away")],
)
def test_fine_tunings_on_other_data_or_beside_leaks_are_refused(tmp_path, changes, complaint):
    first = write_study(tmp_path / "one", [scored(0, 0.5)], **FINE)
    other = write_study(tmp_path / "other", [scored(0, 0.5, **changes)], **FINE)
    with pytest.raises(ConfigError, match=complaint):
        compare(analyse(read(first)), analyse(read(other)))


def test_a_report_does_not_mix_clean_cells_with_such_as_saw_the_label(tmp_path):
    cells = [scored(0, 0.5), scored(1, 0.9, leaks="head behind tail")]
    with pytest.raises(ConfigError, match=r"given the label away \(by head behind tail\) and others were not"):
        analyse(read(write_study(tmp_path / "mixed", cells, **FINE)))


def test_studies_on_other_worlds_are_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"samples N = 20, seed 1: w \(0+3\) and v \(0+3\)"):
        compared(
            tmp_path,
            [cell(n, seed, 0.1) for n in (10, 20) for seed in (0, 1)],
            [cell(n, seed, 0.1, "v" if (n, seed) == (20, 1) else "w") for n in (10, 20) for seed in (0, 1)],
        )


def test_a_refused_comparison_writes_nothing(tmp_path):
    studies = [write_study(tmp_path / name, [cell(10, 0, 0.1, name)]) for name in ("one", "other")]
    with pytest.raises(ConfigError, match="one and other differ in the world"):
        report(ReportConfig(study=[str(study) for study in studies]))
    assert not list(tmp_path.glob("*/report"))


@pytest.mark.parametrize(
    "others",
    [
        [cell(20, 0, 0.1)],  # another place on the axis
        [cell(10, 1, 0.1)],  # another seed
        [cell(10, 0, 0.1, variant="v")],
        [{"axes": {N: 10}, "seed": 0, "error": "RunError"}],  # the same cell, which failed
    ],
)
def test_studies_without_a_matching_cell_are_refused(tmp_path, others):
    with pytest.raises(ConfigError, match=r"of 1 and 1 cells, none that finished in both has the same variant, axes"):
        compared(tmp_path, [cell(10, 0, 0.1)], others)


def test_cells_in_one_study_only_are_counted_and_named(tmp_path):
    first = [cell(10, 0, 0.1), cell(10, 1, 0.1), cell(20, 0, 0.1)]
    other = [cell(10, 0, 0.1), {"axes": {N: 10}, "seed": 1, "error": "RunError"}, cell(30, 0, 0.1), cell(30, 1, 0.1)]
    said = sentences(compared(tmp_path, first, other))
    assert said[0] == "Finished in both one and other, on the same data: 1 cell."
    assert "In both but not finished in both, and so left out: 1 cell." in said
    assert "Only in one: 1 cell (samples N = 20, seed 0)." in said
    assert "Only in other: 2 cells (samples N = 30, seed 0; samples N = 30, seed 1)." in said


def test_the_table_has_both_errors_the_difference_and_the_ratio(tmp_path):
    first = [cell(n, seed, 0.1 + 0.01 * seed) for n in (10, 20) for seed in (0, 1)]
    other = [cell(n, seed, 0.2 + 0.02 * seed) for n in (10, 20) for seed in (0, 1)]
    (main,) = tables(compared(tmp_path, first, other))
    assert main.header == ["samples N", "seeds", "one: learned l1", "other: learned l1", "difference", "ratio"]
    assert main.rows[0][:2] == ["10", "2"]
    assert main.rows[0][-1] == "2.00"
    assert "Cells are paired by seed" in main.note


@pytest.fixture
def two_studies(tmp_path: Path) -> list[str]:
    first = law_cells(seeds=3, variant="a") + law_cells(seeds=3, variant="b")
    other = law_cells(seeds=3, variant="a", factor=1.3) + law_cells(seeds=3, variant="b", factor=1.3)
    return [str(write_study(tmp_path / name, cells)) for name, cells in (("one", first), ("other", other))]


def test_both_curves_and_their_ratio_are_drawn(two_studies):
    comparison = compare(*(analyse(read(Path(study))) for study in two_studies))
    both, ratio = pictures(comparison)
    assert (both.name, ratio.name) == ("compare-other-error", "compare-other-ratio")
    assert {"one", "other", "floor"} <= {t.get_text() for legend in both.figure.legends for t in legend.get_texts()}
    drawn = [line.get_ydata() for line in ratio.figure.axes[0].lines if line.get_linestyle() == "-"]
    assert [list(y) for y in drawn] == [[pytest.approx(1.3)] * 4] * 2


def test_single_points_are_compared_row_by_row(tmp_path):
    first = law_cells((80_000,), seeds=2, variant="a") + law_cells((80_000,), 100, 2, variant="b")
    (picture,) = pictures(compared(tmp_path, first, first))
    assert [label.get_text() for label in picture.figure.axes[0].get_yticklabels()] == ["a", "b"]


def test_the_report_of_two_studies_is_the_firsts_with_a_comparison(two_studies, monkeypatch):
    monkeypatch.setattr(figures, "draw", lambda analysis, folder: [])
    result = report(ReportConfig(study=two_studies))
    folder = Path(two_studies[0]) / "report"
    assert [path.parent for path in result.figures] == [folder, folder]
    page = result.page.read_text()
    assert page.index("one beside other") < page.index('id="curves"')
    assert "the learned l1 of other is 1.30 times that of one" in page
    assert "## one beside other" in result.table_md.read_text()
    assert "1.30 times that of one" in result.text()
    lines = list(csv.DictReader((folder / "compare-other.csv").open()))
    line = next(line for line in lines if (line["variant"], line[N], line["number"]) == ("b", "3000", "recovery_l1"))
    assert float(line["ratio"]) == pytest.approx(1.3)
    assert float(line["difference"]) == pytest.approx(float(line["other"]) - float(line["first"]))
    counted = next(line for line in lines if line["number"] == "count_l1")
    assert float(counted["difference"]) == 0
    assert not (Path(two_studies[1]) / "report").exists()


def test_several_studies_are_each_laid_beside_the_first(two_studies, tmp_path, monkeypatch):
    monkeypatch.setattr(figures, "draw", lambda analysis, folder: [])
    monkeypatch.setattr("hgscale.study.compare.pictures", lambda comparison: [])
    third = write_study(tmp_path / "third", law_cells(seeds=3, variant="a", factor=0.9))
    page = report(ReportConfig(study=[*two_studies, str(third)])).page.read_text()
    assert "one beside other" in page
    assert "one beside third" in page
    assert "Only in one: 12 cells" in page
