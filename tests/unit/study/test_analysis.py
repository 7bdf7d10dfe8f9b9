"""Points, curves and exponents are what the cells say, and only cells that finished say anything."""

import math

import numpy as np
import pytest

from hgscale.errors import ConfigError
from hgscale.study.analysis import analyse
from hgscale.study.results import read
from tests.unit.study.test_results import N, law_cells, law_summary, write_study


def analysed(path, cells, **analysis):
    return analyse(read(write_study(path / "study", cells, analysis=analysis)))


def test_a_mean_is_over_the_seeds_that_finished(tmp_path):
    axes = {N: 10}
    cells = [
        {"axes": axes, "seed": 0, "summary": {"recovery_l1": 1.0, "num_samples": 10}},
        {"axes": axes, "seed": 1, "summary": {"recovery_l1": 3.0, "num_samples": 10}},
        {"axes": axes, "seed": 2, "error": "RunError"},
        {"axes": axes, "seed": 3},
        {"axes": axes, "seed": 4, "summary": {"recovery_l1": None, "num_samples": 10}},
    ]
    (point,) = analysed(tmp_path, cells).points
    mean = point.mean("recovery_l1")
    # Student's t with one degree of freedom: 12.706 times sd / sqrt(2) = 1.
    assert (mean.mean, mean.num) == (2.0, 2)
    assert mean.high == pytest.approx(2 + 12.706, abs=1e-3)
    assert [point.num(status) for status in ("FINISHED", "FAILED", "MISSING")] == [3, 1, 1]
    assert point.mean("count_l1") is None
    assert np.isnan(point.values("recovery_l1")).tolist() == [False, False, True, True, True]


def test_the_exponents_of_a_known_law_are_found(tmp_path):
    analysis = analysed(tmp_path, law_cells(factor=1.1))
    (curve,) = analysis.curves
    for measure in ("recovery_l1", "count_l1"):
        law = analysis.exponent(curve, measure)
        assert law.exponent_low <= -0.5 <= law.exponent_high
        assert law.exponent == pytest.approx(-0.5, abs=0.03)  # 2% noise, 20 cells over 3.4 e-folds: sd 0.004
    floor = analysis.exponent(curve, "count_floor_l1")
    assert floor.exponent == pytest.approx(-0.5, abs=1e-6)


def bent_cells():
    """Flat below N = 10 edges, the law above."""
    cells = law_cells(samples=(100, 200, 1000, 3000, 10_000, 30_000), num_edges=100)
    for cell in cells:
        if cell["axes"][N] < 1000:
            cell["summary"]["count_l1"] = 0.25
    return cells


def test_points_with_few_samples_per_edge_are_in_no_fit(tmp_path):
    analysis = analysed(tmp_path, bent_cells())
    (curve,) = analysis.curves
    assert curve.in_range.tolist() == [False, False, True, True, True, True]
    law = analysis.exponent(curve, "count_l1")
    assert law.exponent == pytest.approx(-0.5, abs=0.03)
    assert (law.num_points, law.x_low) == (4, 1000)
    assert analysis.range_note() == "Fits use points with N \u2265 10 \u00d7 edges."


def test_fit_from_decides_which_points_are_fitted(tmp_path):
    analysis = analysed(tmp_path, bent_cells(), fit_from=0)
    (curve,) = analysis.curves
    law = analysis.exponent(curve, "count_l1")
    assert law.num_points == 6
    assert law.exponent > -0.45  # the flat part counts
    assert analysis.range_note() == "Fits use every point."


def test_a_failed_cell_is_absent_from_the_fit(tmp_path):
    cells = law_cells()
    for cell in cells:
        if cell["seed"] == 4:
            del cell["summary"]
            cell["error"] = "RunError"
    analysis = analysed(tmp_path, cells)
    law = analysis.exponent(analysis.curves[0], "count_l1")
    assert law.num_points == 4
    assert np.isnan(analysis.curves[0].matrix("count_l1")).sum() == 4


def test_too_few_points_are_said_and_not_fitted(tmp_path):
    analysis = analysed(tmp_path, law_cells(samples=(1000, 3000)))
    assert {fit.law for fit in analysis.fits} == {None}
    refusals = {fit.measure: fit.refusal for fit in analysis.fits}
    assert refusals["recovery_l1"] == "2 values of x have two seeds or more, wanted at least 4"
    assert refusals["count_l1"].endswith("wanted at least 3")


def test_growth_with_edges_is_fitted_at_each_number_of_samples(tmp_path):
    cells = [
        cell
        for num_edges in (50, 100, 200, 400)
        for cell in law_cells((10_000, 40_000), num_edges, axes={"world.num_edges": num_edges})
    ]
    analysis = analysed(tmp_path, cells, also=["world.num_edges"])
    grown = [fit for fit in analysis.fits if fit.over == "world.num_edges" and fit.measure == "recovery_l1"]
    assert [fit.curve.key for fit in grown] == [{N: 10_000}, {N: 40_000}]
    assert [fit.law.exponent for fit in grown] == pytest.approx([0.5, 0.5], abs=0.05)
    assert [curve.key for curve in analysis.curves] == [{"world.num_edges": m} for m in (50, 100, 200, 400)]


def test_variants_and_axes_make_curves(tmp_path):
    cells = [
        cell
        for variant in ("pairs", "triples")
        for num_edges in (50, 100)
        for cell in law_cells(
            (1000, 3000), num_edges, 2, variant, axes={"world.num_edges": num_edges, "world.kappa": 3}
        )
    ]
    found = analysed(tmp_path, cells, labels={"pairs": "G(n,m)", "num_edges": "E"}).curves
    assert [curve.label for curve in found] == [
        "G(n,m), E = 50",
        "G(n,m), E = 100",
        "triples, E = 50",
        "triples, E = 100",
    ]
    assert found[0].x.tolist() == [1000, 3000]


def test_fields_that_follow_from_x_make_no_curves_of_their_own(tmp_path):
    cells = [
        {"axes": {N: n, "train.num_steps": steps}, "seed": seed, "summary": law_summary(n, 50, seed)}
        for n, steps in ((1000, 500), (3000, 500), (10_000, 2000), (30_000, 2000))
        for seed in range(2)
    ]
    (curve,) = analysed(tmp_path, cells).curves
    assert curve.x.tolist() == [1000, 3000, 10_000, 30_000]
    assert curve.key == {}
    assert curve.label == "study"


def test_a_field_of_the_summary_may_be_x(tmp_path):
    cells = [
        {
            "axes": {
                "model.hidden_size": width,
                "model.num_attention_heads": width // 16,
                "world.num_edges": num_edges,
            },
            "seed": seed,
            "summary": law_summary(10_000, num_edges, seed) | {"num_parameters": 12 * width**2},
        }
        for num_edges in (100, 200)
        for width in (16, 32, 64)
        for seed in range(2)
    ]
    found = analysed(tmp_path, cells, x="num_parameters").curves
    assert [curve.label for curve in found] == ["edges = 100", "edges = 200"]
    assert found[0].x.tolist() == [3072, 12_288, 49_152]


def test_variants_are_joined_only_where_no_curve_would_be_left(tmp_path):
    cells = [
        cell
        for name in ("model.name", "other")
        for variant, num_edges in (("small", 50), ("large", 200))
        for cell in law_cells((10_000,), num_edges, 2, variant, axes={"model.name": name})
    ]
    found = analysed(tmp_path, cells, x="num_edges").curves
    assert [curve.label for curve in found] == ["model = model.name", "model = other"]
    assert [curve.x.tolist() for curve in found] == [[50, 200], [50, 200]]
    apart = analysed(tmp_path / "a", cells, x="num_edges", join_variants=False).curves
    assert sorted(len(curve.points) for curve in apart) == [1, 1, 1, 1]
    # Where N makes curves of each variant, variants stay apart.
    cells = [cell for variant, m in (("a", 50), ("b", 200)) for cell in law_cells((10_000, 20_000), m, 2, variant)]
    assert [curve.label for curve in analysed(tmp_path / "b", cells).curves] == ["a", "b"]


def test_worlds_that_differ_by_seed_still_make_one_curve_over_half_norm(tmp_path):
    cells = [
        {
            "axes": {"world.num_edges": m, N: n},
            "seed": seed,
            "summary": law_summary(n, m, seed) | {"half_norm": m * (0.9 + 0.01 * seed)},
        }
        for n in (10_000, 20_000)
        for m in (50, 100, 200)
        for seed in range(3)
        if (n, m, seed) != (10_000, 100, 0)  # a missing cell moves the mean, not the curve
    ]
    found = [fit.curve for fit in analysed(tmp_path, cells, also=["half_norm"]).fits if fit.over == "half_norm"]
    assert list(dict.fromkeys(curve.label for curve in found)) == ["samples N = 10,000", "samples N = 20,000"]


@pytest.mark.parametrize(
    ("analysis", "complaint"),
    [
        ({"x": "samples.num_sample"}, r"analysis.x=samples.num_sample is a number in no finished cell"),
        ({"also": ["colour"]}, r"analysis.also=colour is a number in no"),
        ({"fit_form": 3}, r"analysis has fit_form; its fields are x, also, fit_from"),
        ({"fit_from": -1}, r"analysis.fit_from=-1"),
    ],
)
def test_an_analysis_that_cannot_be_is_refused(tmp_path, analysis, complaint):
    with pytest.raises(ConfigError, match=complaint):
        analysed(tmp_path, law_cells(seeds=2), **analysis)


def test_the_best_of_countings_is_taken_cell_by_cell(tmp_path):
    smoothed = {"good_turing_l1": 0.05, "absolute_discounting_l1": 0.08}
    cells = [
        {"axes": {N: 10}, "seed": 0, "summary": {"recovery_l1": 0.1, "count_l1": 0.2, "num_samples": 10} | smoothed},
        {"axes": {N: 10}, "seed": 1, "summary": {"recovery_l1": 0.1, "count_l1": 0.04, "num_samples": 10} | smoothed},
    ]
    (point,) = analysed(tmp_path, cells).points
    assert point.values("ratio_to_best_count").tolist() == [2.0, 2.5]


def test_what_is_not_in_the_summary_is_not_derived(tmp_path):
    cells = [{"axes": {N: 10}, "summary": {"recovery_l1": 0.1, "count_l1": 0.2, "num_samples": 10, "half_norm": 0}}]
    analysis = analysed(tmp_path, cells)
    assert analysis.measures == ["recovery_l1", "count_l1"]
    assert math.isnan(analysis.points[0].values("samples_per_half_norm")[0])


def test_published_errors_stand_beside_ours(tmp_path):
    cells = law_cells((80_000,), 245, 2, "paper-50") + law_cells((80_000,), 990, 2, "paper-100")
    analysis = analysed(tmp_path, cells, published={"paper-50": 0.1168})
    first, second = analysis.points
    assert first.mean("published_ratio_to_floor").mean == pytest.approx(0.1168 / math.sqrt(2 * 245 / (math.pi * 8e4)))
    assert second.mean("published_l1") is None


def test_a_curve_of_points_that_are_all_missing_is_no_curve(tmp_path):
    cells = [*law_cells(seeds=2, variant="a"), *({"variant": "b", "axes": {N: n}} for n in (1000, 3000))]
    analysis = analysed(tmp_path, cells)
    assert [curve.has("recovery_l1") for curve in analysis.curves] == [True, False]
    assert {fit.curve.label for fit in analysis.fits} == {"a"}


def test_growth_over_another_x_than_samples_has_no_plateau(tmp_path):
    # Flatter at small m, as a plateau would make it: with x a number of edges it is noise, and the law stays one.
    cells = [
        {
            "axes": {"world.num_edges": m},
            "seed": seed,
            "summary": law_summary(100_000, m, seed) | {"recovery_l1": error},
        }
        for m in (50, 100, 200, 400)
        for seed in range(3)
        for error in [0.01 + 0.0001 * m * (1 + seed / 100)]
    ]
    analysis = analysed(tmp_path, cells, x="world.num_edges", fit_from=0)
    (curve,) = analysis.curves
    law = analysis.exponent(curve, "recovery_l1")
    assert (law.offset, law.offset_low) == (0, None)
