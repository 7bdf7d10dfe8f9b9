"""The figure of a run: every edge is in it, its curves are right, and no half-written file is left."""

import struct
import subprocess
import sys
from pathlib import Path
from typing import IO

import numpy as np
import pytest
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure

from hgscale.errors import RunError
from hgscale.pretrain import figure
from hgscale.pretrain.figure import recovery_figure

pytestmark = pytest.mark.filterwarnings("error")  # a warning of matplotlib is a fault in the picture

RNG = np.random.default_rng(5)
WORLDS = {
    "one edge": np.ones(1),
    "equal weights": np.ones(300),
    "nine edges, two levels": np.array([1.0, 3, 1, 3, 1, 3, 1, 3, 1]),
    "two far levels": np.repeat([1.0, 1000.0], 200),
    "twelve levels": np.repeat(np.arange(1.0, 13.0), 3),
    "many near weights": RNG.uniform(1, 3, 500),
    "a wide law": RNG.dirichlet(np.ones(2000)),
    "more edges than points": RNG.dirichlet(np.ones(figure.MAX_POINTS + 1)),
}


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Draw, and give the figure itself instead of a file."""

    def draw(truth: np.ndarray, recovered: np.ndarray, counted: np.ndarray | None = None, **summary: object) -> Figure:
        kept: list[Figure] = []
        with monkeypatch.context() as patch:
            patch.setattr(figure, "_write", lambda drawn, path: kept.append(drawn))
            recovery_figure(truth, recovered, counted, summary, tmp_path / "x.png")
        return kept[0]

    return draw


def words(drawn: Figure) -> str:
    return " ".join(text.get_text() for text in drawn.texts)


@pytest.mark.parametrize(
    ("name", "num_samples"), [*((name, 1000) for name in WORLDS), ("equal weights", None), ("a wide law", None)]
)
def test_any_world_is_drawn_even_where_nothing_was_recovered_or_counted(name, num_samples, tmp_path):
    truth = WORLDS[name] / WORLDS[name].sum()
    counted = RNG.multinomial(1000, truth) / 1000
    path = tmp_path / "run" / "recovery.png"
    recovery_figure(truth, np.zeros(len(truth)), counted, {"num_samples": num_samples}, path)
    head = path.read_bytes()[:24]
    assert head[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">II", head[16:24]) == (1540, 784)  # 11 x 5.6 inches at 140 dots
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("name", ["nine edges, two levels", "two far levels", "a wide law"])
def test_every_edge_has_its_point_those_beyond_the_frame_on_it(name, drawn):
    truth = WORLDS[name] / WORLDS[name].sum()
    counted = RNG.multinomial(1000, truth) / 1000
    recovered = np.where(np.arange(len(truth)) % 3 == 0, 0, truth)
    axes = drawn(truth, recovered, counted, num_samples=1000).axes[0]
    points = np.concatenate([cloud.get_offsets() for cloud in axes.collections if isinstance(cloud, PathCollection)])
    assert len(points) == 2 * len(truth)
    (x_low, x_high), (y_low, y_high) = axes.get_xlim(), axes.get_ylim()
    assert (points >= [x_low, y_low]).all()
    assert (points <= [x_high, y_high]).all()


def test_errors_are_in_units_of_counting_noise(drawn):
    # sd of count / N at w = 1/2, N = 100: sqrt(1/4 / 100) = 0.05. The errors 0 and 0.1 are 0 and 2 of those.
    axes = drawn(np.array([0.5, 0.5]), np.array([0.6, 0.5]), num_samples=100).axes[1]
    (line,) = [line for line in axes.lines if line.get_label().startswith("model")]
    x, y = line.get_data()
    np.testing.assert_allclose(x[:3], [0, 0, 2], atol=1e-12)
    np.testing.assert_allclose(y, [0, 0.5, 1, 1])
    assert line.get_label() == "model: median 1.00"


def test_without_a_number_of_samples_errors_are_ratios(drawn):
    axes = drawn(np.array([0.5, 0.5]), np.array([0.25, 0.5])).axes[1]
    (line,) = axes.lines
    np.testing.assert_allclose(line.get_xdata()[:3], [0, 0, 1])  # one edge right, one off by a factor of two
    assert "log2" in axes.get_xlabel()


def test_the_band_is_two_standard_deviations_of_a_binomial(drawn):
    # w = 0.2, N = 400: sd = sqrt(0.2 * 0.8 / 400) = 0.02; w = 0.8 has the same.
    axes = drawn(np.array([0.2, 0.8]), np.array([0.2, 0.8]), num_samples=400).axes[0]
    bands = [band.get_paths()[0].get_extents() for band in axes.collections if "FillBetween" in type(band).__name__]
    np.testing.assert_allclose([[band.y0, band.y1] for band in bands], [[0.16, 0.24], [0.76, 0.84]])


def test_the_numbers_of_the_summary_are_written_and_missing_ones_are_not(drawn):
    truth = np.array([0.5, 0.5])
    told = words(
        drawn(
            truth,
            truth,
            num_samples=80_000,
            ratio_to_floor=1.204,
            recovery_l1=0.05,
            count_floor_l1=0.0415,
            off_support_mass=0.0123,
        )
    )
    assert "error 1.20 \u00d7 the floor of counting" in told
    assert "l1 0.0500    floor 0.0415    off-support mass 0.0123    N = 80,000    E = 2" in told
    assert words(drawn(truth, truth, ratio_to_floor=None, recovery_l1=None)) == "recovery E = 2"


def test_the_same_run_gives_the_same_bytes(tmp_path):
    truth = WORLDS["nine edges, two levels"] / WORLDS["nine edges, two levels"].sum()
    for name in ("a.png", "b.png"):
        recovery_figure(truth, truth, truth, {"num_samples": 100}, tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_a_failed_write_leaves_the_earlier_figure_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "recovery.png"
    path.write_bytes(b"earlier")

    def full(self: object, target: IO[bytes]) -> None:
        target.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(figure.FigureCanvasAgg, "print_png", full)
    with pytest.raises(RunError, match=r"recovery\.png: cannot be written \(No space left"):
        recovery_figure(np.ones(1), np.ones(1), None, {}, path)
    assert path.read_bytes() == b"earlier"
    assert list(tmp_path.iterdir()) == [path]


def test_drawing_touches_no_global_state_of_pyplot():
    check = "import sys, hgscale.pretrain.figure; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check]).returncode == 0
