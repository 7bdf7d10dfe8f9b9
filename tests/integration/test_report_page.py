"""The report's page as a browser shows it: headless Chromium, at the width of a desk and of a phone."""

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from hgscale.study.report import write_report
from tests.unit.study.test_results import law_cells, write_study

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


@pytest.fixture(scope="module")
def browser() -> str:
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip(f"no browser ({', '.join(NAMES)}); on Debian: apt-get install chromium")
    return found


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    cells = law_cells(seeds=3, variant="G(n,m)") + law_cells(seeds=3, num_edges=100, variant="triples", factor=1.2)
    del cells[0]["summary"]
    cells[0]["error"] = "RunError: <script>document.title='broken'</script>"
    return write_report(write_study(tmp_path_factory.mktemp("studies") / "seen", cells)).page


def browse(browser: str, page: Path, folder: Path, *options: str) -> str:
    """Open the page without a network, and give what the browser says."""
    command = [browser, "--headless=new", "--disable-gpu", "--hide-scrollbars", "--host-resolver-rules=MAP * ~NOTFOUND"]
    command += ["--no-sandbox"] if os.geteuid() == 0 else []
    command += [f"--user-data-dir={folder / 'profile'}", *options, page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


def test_the_browser_shows_the_key_texts(browser, page, tmp_path):
    dom = browse(browser, page, tmp_path, "--dump-dom")
    for words in (
        "<title>Study seen</title>",  # the error's script did not run
        "23 of 24 cells finished, 1 failed.",
        "Fits use points with N \u2265 10 \u00d7 edges.",
        "learned exponent",  # inside a figure
        "triples",
        "Failed cells: 1",
        "RunError: &lt;script&gt;",
    ):
        assert words in dom
    assert dom.count("<svg") == 5


@pytest.mark.parametrize("width", [1200, 500])
def test_the_page_is_not_blank(browser, page, tmp_path, width):
    picture = tmp_path / "page.png"
    browse(browser, page, tmp_path, f"--window-size={width},2400", f"--screenshot={picture}")
    pixels = imread(picture)[..., :3]
    assert pixels.shape == (2400, width, 3)
    ink = (pixels < 0.8).any(axis=2)
    assert 0.01 < ink.mean() < 0.3  # words and lines on white
    blue = np.abs(pixels - np.array([0x1F, 0x4E, 0x9C]) / 255).max(axis=2) < 0.02
    assert blue.sum() > 500  # the learned curve, 1.4 points wide
    # Nothing but what scrolls by itself is wider than the window: the margin at the right is empty.
    assert not ink[:, -5:].any()
