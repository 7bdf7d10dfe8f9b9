"""Figures show what the cells say, fit their frames, and are left out where numbers are missing."""

import itertools
import re
import struct
from pathlib import Path

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from hgscale.errors import RunError
from hgscale.study import charts, figures
from hgscale.study.analysis import Analysis, analyse
from hgscale.study.charts import Picture
from hgscale.study.results import read
from tests.unit.study.test_results import N, law_cells, write_study

pytestmark = pytest.mark.filterwarnings("error")  # a warning of matplotlib is a fault in the picture

EVERYTHING = {
    "good_turing_l1": 0.04,
    "absolute_discounting_l1": 0.05,
    "structured_floor_l1": 0.01,
    "log_likelihood": -5.2,
    "good_turing_log_likelihood": -5.4,
    "absolute_discounting_log_likelihood": -5.5,
    "entropy_nats": 5.0,
    "capacity_bits": 2000.0,
    "bits_per_parameter": 2.0,
    "heldout_l1": 0.3,
    "heldout_count_l1": 0.4,
    "heldout_world_l1": 0.2,
    "heldout_log_likelihood": -5.6,
    "heldout_good_turing_log_likelihood": -5.9,
}
ALWAYS = ["error", "ratio", "collapse", "exponents", "support"]
LONG = "a name that is much longer than any figure has room for, whatever its author thought"


def cells_of(kind: str) -> list[dict]:
    variants = {
        "one curve": ["plain"],
        "three curves": ["plain", "other", LONG],
        "eight curves": [f"variant {i}" for i in range(8)],
        "twelve curves": [f"variant {i}" for i in range(12)],
        "one point each": ["plain", LONG],
        "one seed": ["plain", "other"],
        "a short range": ["plain", "other"],
    }
    if kind == "twenty curves":
        return [
            cell
            for i, variant in enumerate("abcd")
            for m in (50, 100, 200, 400, 800)
            for cell in law_cells(num_edges=m, seeds=3, variant=variant, factor=1 + i / 10, axes={"world.num_edges": m})
        ]
    if kind == "forty variants":
        return [cell for i in range(40) for cell in law_cells((1000, 3000), seeds=2, variant=f"v{i}")]
    if kind == "plateaus":
        cells = [
            cell for variant in "abc" for cell in law_cells((1000, 3000, 10_000, 100_000, 1_000_000), variant=variant)
        ]
        for cell in cells:
            cell["summary"]["recovery_l1"] = cell["summary"]["recovery_l1"] + 0.0256
        return cells
    samples = {"one point each": (80_000,), "a short range": (1000, 1500, 2000)}.get(kind, (200, 1000, 10_000, 100_000))
    seeds = 1 if kind == "one seed" else 3
    return [
        cell
        for i, variant in enumerate(variants[kind])
        for cell in law_cells(samples, 50, seeds, variant, 1 + i / 5, **(EVERYTHING if len(variants[kind]) < 4 else {}))
    ]


SLOW_KINDS = ["one curve", "eight curves", "twelve curves", "forty variants", "one seed"]
KINDS = [
    *("three curves", "twenty curves", "one point each", "a short range", "plateaus"),
    *(pytest.param(kind, marks=pytest.mark.slow) for kind in SLOW_KINDS),
]


def analysed(path: Path, cells: list[dict], **analysis: object) -> Analysis:
    return analyse(read(write_study(path / "study", cells, analysis=analysis)))


@pytest.fixture
def pictures(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """The pictures of a study by name, before they are written."""

    def draw(cells: list[dict], **analysis: object) -> dict[str, Picture]:
        with monkeypatch.context() as patch:
            patch.setattr(figures, "write", lambda picture, folder: picture)
            return {picture.name: picture for picture in figures.draw(analysed(tmp_path, cells, **analysis), tmp_path)}

    return draw


def texts(picture: Picture) -> list[Text]:
    return [text for text in picture.figure.findobj(Text) if text.get_text().strip() and text.get_visible()]


@pytest.fixture
def drawn_text(monkeypatch: pytest.MonkeyPatch):
    """Draw a figure, and give every text that was drawn with the box that it fills, in dots."""

    def draw(picture: Picture) -> list[tuple[str, Bbox]]:
        drawn: list[tuple[str, Bbox]] = []
        original = Text.draw

        def spy(text: Text, renderer: object) -> None:
            if text.get_visible() and text.get_text().strip():
                drawn.append((text.get_text(), text.get_window_extent(renderer)))
            original(text, renderer)

        with monkeypatch.context() as patch:
            patch.setattr(Text, "draw", spy)
            FigureCanvasAgg(picture.figure).draw()
        return drawn

    return draw


@pytest.mark.parametrize("kind", KINDS)
def test_no_text_leaves_its_figure_or_lies_on_other_text(pictures, drawn_text, kind):
    for name, picture in pictures(cells_of(kind)).items():
        drawn = drawn_text(picture)
        width, height = picture.figure.bbox.size
        for words, box in drawn:
            inside = box.x0 >= -1 and box.y0 >= -1 and box.x1 <= width + 1 and box.y1 <= height + 1
            assert inside, f"{name}: {words!r} is cut off at {box}"
        for (words, box), (others, beside) in itertools.combinations(drawn, 2):
            overlap = min(box.x1, beside.x1) - max(box.x0, beside.x0), min(box.y1, beside.y1) - max(box.y0, beside.y0)
            # Boxes are of whole lines: letters of neighbours may come within 3 dots without touching.
            assert min(overlap) < 3, f"{name}: {words!r} lies on {others!r}"


def test_figures_whose_numbers_are_missing_are_left_out(pictures):
    assert list(pictures(law_cells())) == ALWAYS


def test_capacity_is_shown_where_it_is_asked_for(pictures):
    assert list(pictures(law_cells(capacity_bits=1.0, bits_per_parameter=1.0))) == ALWAYS


def test_every_number_has_its_figure(pictures):
    more = ["capacity", "log_likelihood", "heldout_error", "heldout_log_likelihood"]
    assert list(pictures(cells_of("three curves"), capacity=True)) == ALWAYS + more


def test_a_study_of_which_nothing_finished_has_no_figures(pictures):
    assert pictures([{"axes": {N: 10}, "error": "RunError"}, {"axes": {N: 20}}]) == {}


def markers(picture: Picture, color: str) -> dict[str, list[float]]:
    """x of the filled and of the hollow points of a colour."""
    found: dict[str, list[float]] = {"filled": [], "hollow": []}
    for collection in picture.figure.axes[0].collections:
        if len(offsets := collection.get_offsets()) and len(collection.get_facecolor()):
            face, edge = to_hex(collection.get_facecolor()[0]), collection.get_edgecolor()
            if face == color and offsets[0][0]:
                found["filled"] += offsets[:, 0].tolist()
            elif face == "#ffffff" and len(edge) and to_hex(edge[0]) == color:
                found["hollow"] += offsets[:, 0].tolist()
    return found


def test_points_outside_the_range_of_fits_are_hollow(pictures):
    picture = pictures(law_cells((200, 400, 1000, 10_000), num_edges=50))["error"]
    assert markers(picture, charts.BLUE) == {"filled": [1000, 10_000], "hollow": [200, 400]}
    assert "N < 10 \u00d7 edges: in no fit" in [text.get_text() for text in texts(picture)]


def test_a_failed_cell_and_a_missing_one_are_in_no_line(pictures):
    cells = law_cells((1000, 2000, 4000, 8000), seeds=2)
    cells = [cell if cell["axes"][N] != 2000 else cell | {"summary": {}} for cell in cells]
    for cell in cells:
        if not cell["summary"]:
            del cell["summary"]
    picture = pictures(cells)["error"]
    assert markers(picture, charts.BLUE)["filled"] == [1000, 4000, 8000]


def test_the_collapse_is_laid_beside_the_law_of_counting(pictures):
    axes = pictures(law_cells())["collapse"].figure.axes[0]
    dashed = next(line for line in axes.lines if line.get_linestyle() == "--")
    x, y = dashed.get_data()
    assert np.allclose(y**2 * x, 2 / np.pi)
    solid = next(line for line in axes.lines if line.get_linestyle() == "-")
    assert solid.get_xdata().tolist() == [n / 50 for n in (1000, 3000, 10_000, 30_000)]


def test_the_plateau_is_the_largest_mean_of_bits_per_parameter(pictures):
    cells = law_cells((1000,), 50, 2, "a", capacity_bits=1500.0, bits_per_parameter=1.5)
    cells += law_cells((1000,), 50, 2, "b", capacity_bits=400.0, bits_per_parameter=0.4)
    picture = pictures(cells, capacity=True)["capacity"]
    assert "plateau 1.50" in [text.get_text() for text in texts(picture)]
    assert "1.50 bits per parameter" in picture.caption


def test_published_errors_are_drawn_beside_ours(pictures):
    cells = law_cells((80_000,), 50, 2, "paper") + law_cells((80_000,), 200, 2, "other")
    picture = pictures(cells, published={"paper": 0.25})["error"]
    dots = [point for c in picture.figure.axes[0].collections for point in c.get_offsets()[:, 0].tolist()]
    assert dots.count(0.25) == 1


def test_curves_beyond_twelve_share_panels(pictures):
    picture = pictures(cells_of("twenty curves"))["error"]
    panels = [axes for axes in picture.figure.axes if axes.get_visible()]
    assert [axes.get_title(loc="left") for axes in panels] == ["a", "b", "c", "d"]
    words = [text.get_text() for text in texts(picture)]
    assert "learned, edges = 800" in words


def test_a_figure_is_written_as_png_and_as_svg_that_loads_nothing(tmp_path):
    drawn = figures.draw(analysed(tmp_path, cells_of("three curves")), tmp_path / "out")
    assert [one.png for one in drawn] == [tmp_path / "out" / f"{one.name}.png" for one in drawn]
    ids: list[str] = []
    for one in drawn:
        head = one.png.read_bytes()[:24]
        assert head[:8] == b"\x89PNG\r\n\x1a\n"
        width, height = struct.unpack(">II", head[16:24])
        assert width == round(charts.WIDTH * 130)
        assert height > 200
        assert one.svg.startswith("<svg")
        assert "http" not in one.svg
        assert "<text" in one.svg
        ids += re.findall(r'\bid="([^"]+)"', one.svg)
        for used in re.findall(r'(?:href="#|url\(#)([^")]+)', one.svg):
            assert f'id="{used}"' in one.svg
    assert len(set(ids)) == len(ids)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(f"{one.name}.png" for one in drawn)


def test_the_same_cells_give_the_same_svg(tmp_path):
    analysis = analysed(tmp_path, law_cells(seeds=2))
    first, second = (figures.draw(analysis, tmp_path / name) for name in ("a", "b"))
    assert [one.svg for one in first] == [one.svg for one in second]


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    analysis = analysed(tmp_path, law_cells(seeds=2))
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"file.*cannot be written.*--out"):
        figures.draw(analysis, tmp_path / "file")
