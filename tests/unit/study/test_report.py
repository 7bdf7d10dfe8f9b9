"""A report says what the cells say: numbers with intervals, failures by name, nothing where nothing is."""

import csv
import json
import re
import subprocess
import sys
import time
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import pytest

from hgscale.config import parse
from hgscale.errors import ConfigError, RunError
from hgscale.hypergraph.recovery.comparison import SPARSE_COUNT
from hgscale.study import figures
from hgscale.study.report import ReportConfig, ReportResult, report, write_report
from hgscale.study.results import commit
from tests.unit.study.test_results import N, law_cells, law_summary, write_study

HOSTILE = "RunError: <script>alert('x')</script> & | more_of *it*"
VOID = {"meta", "br", "hr", "img", "link", "input"}


def hostile_cells() -> list[dict]:
    """Two curves; one cell failed with an error that looks like HTML, one is missing, one number is missing."""
    cells = law_cells(seeds=3, variant="a <b> & c") + law_cells((200, 1000, 3000, 10_000), 100, 3, "plain", 1.2)
    cells[4] = {key: value for key, value in cells[4].items() if key != "summary"} | {"error": HOSTILE}
    del cells[-1]["summary"]
    for cell in cells[12:15]:
        cell["summary"]["support_recall"] = None
    cells[0]["commit"] = "fff0000"
    return cells


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    settings = {
        "base": {"world": {"path": "</pre><b>"}},
        "tracking": {"uri": "https://me:secret@host"},
        "seeds": 3,
    }
    return write_study(tmp_path_factory.mktemp("studies") / "hostile", hostile_cells(), **settings)


@pytest.fixture(scope="module")
def written(study: Path) -> ReportResult:
    return write_report(study)


@pytest.fixture
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures take most of a report's time, and are tested by themselves."""
    monkeypatch.setattr(figures, "draw", lambda analysis, folder: [])


class Page(HTMLParser):
    """What a page holds; unbalanced elements are refused."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.words: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.elements: Counter[str] = Counter()
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements[tag] += 1
        values = dict(attrs)
        assert not {"src", "srcset", "data"} & set(values), f"<{tag}> loads something"
        assert not any(name.startswith("on") for name in values)
        self.ids += [values["id"] or ""] if "id" in values else []
        self.links += [values["href"] or ""] if "href" in values else []

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="module")
def page(written: ReportResult) -> Page:
    return Page(written.page.read_text())


def test_the_files_of_a_report_lie_in_the_study(study, written):
    names = ["table.md", "table.csv", "fits.json", "report.html"]
    pngs = [f"{name}.png" for name in ("error", "ratio", "collapse", "exponents", "support")]
    assert sorted(path.name for path in (study / "report").iterdir()) == sorted(names + pngs)
    assert [path.name for path in written.figures] == pngs
    assert all(path.is_file() for path in (written.table_md, written.table_csv, written.fits_json, written.page))


def test_the_page_loads_nothing_and_runs_nothing(written, page):
    text = written.page.read_text()
    assert "http" not in text
    assert "@import" not in text
    assert not {"script", "link", "iframe", "img", "object", "embed"} & set(page.elements)
    assert page.elements["svg"] == 5
    assert all(link.startswith("#") for link in page.links)


@pytest.mark.parametrize(
    ("measure", "words"),
    [
        ("sparse_l1", f"would hold less than {SPARSE_COUNT} times, scaled to 1"),
        ("dense_l1", "at least as often as readout.min_count says"),
    ],
)
def test_the_page_says_what_was_read_out_where_a_model_was_read_twice(tmp_path, no_figures, measure, words):
    made = write_report(write_study(tmp_path / "study", law_cells(seeds=2, **{measure: 0.1})))
    assert words in Page(made.page.read_text()).text


def test_every_link_of_the_page_leads_somewhere_and_only_there(page):
    assert {link.removeprefix("#") for link in page.links} <= set(page.ids)
    assert len(set(page.ids)) == len(page.ids)


@pytest.mark.parametrize(
    "words",
    [
        "Study hostile",
        "22 of 24 cells finished, 1 failed, 1 missing.",
        "Cells ran at fff0000 (1), abc1234 (21), finished 2026-11-20.",
        "Report written by hgscale report at",
        "Fits use points with N \u2265 10 \u00d7 edges.",
        "Ratio to floor:",
        "Error against samples N",
        "Collapse over N / half-norm",
        "Table of exponents",
        "Failed cells: 1",
        "Missing cells: 1",
        "How the numbers are made",
        "a <b> & c",
        "</pre><b>",
    ],
)
def test_the_page_says(page, words):
    assert words in page.text


def test_the_page_is_signed_with_this_commit_and_date(page):
    signed = re.search(r"hgscale report at (\S+), (\d{4}-\d\d-\d\d) \d\d:\d\d UTC", page.text)
    assert signed[1] == (commit() or "an")
    assert abs(time.time() - time.mktime(time.strptime(signed[2], "%Y-%m-%d"))) < 3 * 86400


def test_a_failed_cell_is_named_with_its_error(written, page):
    assert f"a <b> & c, samples N = 3,000 1 {4:016x} {HOSTILE}" in page.text
    table = written.table_md.read_text()
    assert "<script>" not in table
    escaped = "RunError: &lt;script&gt;alert('x')&lt;/script&gt; &amp; \\| more\\_of \\*it\\*"
    assert f"| a &lt;b&gt; &amp; c, samples N = 3,000 | 1 | {4:016x} | {escaped} |" in table


def test_a_password_in_a_tracking_address_is_on_no_page(written):
    assert "secret" not in written.page.read_text() + written.table_md.read_text()


def test_a_missing_value_is_blank_in_csv_and_a_dash_in_markdown(written):
    lines = list(csv.DictReader(written.table_csv.open()))
    gone = next(line for line in lines if line["variant"] == "plain" and line[N] == "200")
    there = next(line for line in lines if line["variant"] == "plain" and line[N] == "1000")
    assert (gone["support_recall"], gone["support_recall_low"]) == ("", "")
    assert (there["support_recall"], there["support_recall_low"]) == ("1", "1")
    assert (gone["num_finished"], gone["num_failed"], gone["num_missing"]) == ("3", "0", "0")
    assert (gone["in_range_of_fits"], there["in_range_of_fits"]) == ("false", "true")
    row = next(line for line in written.table_md.read_text().splitlines() if line.startswith("| plain | 200 |"))
    assert row.endswith("| - |")


def test_the_csv_holds_means_and_intervals_in_full(written):
    line = next(line for line in csv.DictReader(written.table_csv.open()) if line[N] == "1000")
    errors = [law_summary(1000, 50, seed)["recovery_l1"] for seed in range(3)]
    mean = sum(errors) / 3
    assert float(line["recovery_l1"]) == pytest.approx(mean, rel=1e-7)
    half = 4.302653 * (sum((error - mean) ** 2 for error in errors) / 2 / 3) ** 0.5  # Student's t, 2 degrees
    assert float(line["recovery_l1_high"]) == pytest.approx(mean + half, rel=1e-6)


def test_the_fits_are_in_a_file_and_those_refused_say_why(written):
    content = json.loads(written.fits_json.read_text())
    assert (content["study"], content["x"], content["fit_from_samples_per_edge"]) == ("hostile", N, 10)
    by_curve = {(fit["curve"], fit["measure"]): fit for fit in content["fits"]}
    assert by_curve["a <b> & c", "count_l1"]["law"]["exponent"] == pytest.approx(-0.5, abs=0.05)
    assert by_curve["plain", "recovery_l1"]["law"] is None
    assert "wanted at least 4" in by_curve["plain", "recovery_l1"]["refused"]
    assert by_curve["plain", "recovery_l1"]["fixed"] == {"variant": "plain"}


def test_metrics_have_names_that_a_tracking_server_takes(written):
    metrics = written.metrics
    assert (metrics["num_finished"], metrics["num_failed"], metrics["num_missing"]) == (22, 1, 1)
    assert 1.1 < metrics["ratio_to_floor_mean"] < metrics["ratio_to_floor_max"] < 1.3
    name = "num_samples/counting/a_b_c"
    assert metrics[f"exponent_low/{name}"] < metrics[f"exponent/{name}"] < metrics[f"exponent_high/{name}"]
    assert all(re.fullmatch(r"[\w./-]+", name) and isinstance(value, int | float) for name, value in metrics.items())


def test_the_text_for_a_terminal_has_the_numbers_and_the_paths(written):
    assert written.text().startswith("study hostile: 22 of 24 cells finished, 1 failed, 1 missing\n")
    assert "ratio to floor" in written.text()
    assert str(written.page) in written.text()


def test_a_study_is_found_by_its_name(tmp_path, monkeypatch, no_figures):
    monkeypatch.setenv("HGSCALE_HOME", str(tmp_path))
    directory = write_study(tmp_path / "studies" / "mine", law_cells((1000,), seeds=1))
    assert report(ReportConfig(study=["mine"])).page == directory / "report" / "report.html"
    with pytest.raises(ConfigError, match="study=yours is no study; studies are mine"):
        report(ReportConfig(study=["yours"]))


@pytest.mark.parametrize(("names", "complaint"), [([], "study is not given"), (["s", "./s"], "names one study twice")])
def test_a_request_without_studies_or_with_one_twice_is_refused(tmp_path, monkeypatch, names, complaint):
    monkeypatch.chdir(tmp_path)
    write_study(Path("s"), law_cells((1000,), seeds=1))
    with pytest.raises(ConfigError, match=complaint):
        report(ReportConfig(study=names))


def test_the_options_of_the_command_line_reach_the_config():
    config = parse(ReportConfig, ["--study=[one,other]", "--out", "there", "--into", "README.md"], "report")
    assert config == ReportConfig(study=["one", "other"], out="there", into="README.md")


def test_out_says_where_everything_goes(tmp_path, no_figures):
    directory = write_study(tmp_path / "s", law_cells((1000,), seeds=1))
    result = report(ReportConfig(study=[str(directory)], out=str(tmp_path / "there")))
    assert {result.page.parent, result.table_csv.parent} == {tmp_path / "there"}
    assert not (directory / "report").exists()


def test_a_place_that_cannot_be_written_is_named(tmp_path, no_figures):
    directory = write_study(tmp_path / "s", law_cells((1000,), seeds=1))
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"file/table.csv: cannot be written.*--out"):
        report(ReportConfig(study=[str(directory)], out=str(tmp_path / "file")))


README = "before\n<!-- hgscale report s -->\nold\n<!-- end -->\nafter\n<!-- hgscale report t -->\nkept\n<!-- end -->\n"


def test_into_replaces_the_block_of_the_study_and_nothing_else(tmp_path, no_figures):
    directory, readme = write_study(tmp_path / "s", law_cells(seeds=3)), tmp_path / "README.md"
    readme.write_text(README)
    report(ReportConfig(study=[str(directory)], into=str(readme)))
    text = readme.read_text()
    assert text.startswith(
        "before\n<!-- hgscale report s -->\n| curve | samples N | learned l1 | floor l1 | ratio to floor |"
    )
    assert text.endswith("<!-- end -->\nafter\n<!-- hgscale report t -->\nkept\n<!-- end -->\n")
    assert "old" not in text
    assert "Cells ran at abc1234, finished 2026-11-20." in text
    assert re.search(r"Report written by hgscale report at .*, \d{4}-\d\d-\d\d", text)
    report(ReportConfig(study=[str(directory)], into=str(readme)))
    assert len(readme.read_text().splitlines()) == len(text.splitlines())


@pytest.mark.parametrize("text", ["no block", "<!-- hgscale report s -->\nno end\n", README + README, None])
def test_into_a_file_without_one_place_is_refused_before_anything_is_written(tmp_path, text):
    directory, readme = write_study(tmp_path / "s", law_cells(seeds=1)), tmp_path / "README.md"
    if text is not None:
        readme.write_text(text)
    with pytest.raises(ConfigError, match=r"README.md"):
        report(ReportConfig(study=[str(directory)], into=str(readme)))
    assert not (directory / "report").exists()
    assert text is None or readme.read_text() == text


def test_a_study_of_which_nothing_finished_is_reported_as_such(tmp_path):
    cells = [{"axes": {N: 10}, "error": "RunError: no memory"}, {"axes": {N: 20}}]
    result = write_report(write_study(tmp_path / "s", cells))
    assert result.figures == []
    assert result.metrics == {"num_finished": 0, "num_failed": 1, "num_missing": 1}
    words = Page(result.page.read_text()).text
    assert "0 of 2 cells finished, 1 failed, 1 missing" in words
    assert "No cell has finished yet" in words
    assert next(csv.DictReader(result.table_csv.open()))["in_range_of_fits"] == ""


def test_a_study_of_single_points_is_told_without_fits(tmp_path):
    cells = law_cells((80_000,), 50, 3, "paper-50", cpu_s=90.0) + law_cells((80_000,), 100, 3, "paper-100")
    result = write_report(write_study(tmp_path / "s", cells, analysis={"published": {"paper-50": 0.1168}}))
    table = result.table_md.read_text()
    assert "## Exponents" not in table
    assert "Fits use" not in table
    assert "| 0.117 |" in table
    assert "published l1" in Page(result.page.read_text()).text
    curves = re.search(r"curve +.*\n.*", result.text())
    assert curves
    assert "ratio to counting" in curves[0]
    assert curves[0].endswith("1.50")  # core-minutes


def test_growth_over_another_quantity_is_in_the_table_and_the_metrics(tmp_path, no_figures):
    cells = [cell for m in (50, 100, 200) for cell in law_cells((10_000, 40_000), m, 3, axes={"world.num_edges": m})]
    result = write_report(write_study(tmp_path / "s", cells, analysis={"also": ["world.num_edges"]}))
    assert result.metrics["exponent/num_edges/counting/samples_N_10_000"] == pytest.approx(0.5, abs=0.05)
    assert "| samples N = 10,000 | edges |" in result.table_md.read_text()


def test_a_thousand_cells_are_reported_within_the_limit(tmp_path):
    samples = [1000 * 3**i for i in range(10)]
    cells = [
        cell
        for variant in "abcd"
        for m in (50, 100, 200, 400, 800)
        for cell in law_cells(samples, m, 5, variant, axes={"world.num_edges": m})
    ]
    assert len(cells) == 1000
    directory = write_study(tmp_path / "s", cells)
    start = time.process_time()
    result = write_report(directory)
    assert time.process_time() - start < 20  # CPU seconds: a shared machine may take longer by the clock
    assert result.metrics["num_finished"] == 1000
    assert result.page.stat().st_size < 5e6
    Page(result.page.read_text())


def test_reading_a_report_in_loads_nothing_heavy(repo_root):
    code = (
        "import sys, hgscale.study.report;"
        "heavy = {'torch', 'ray', 'deepspeed', 'mlflow', 'transformers', 'matplotlib', 'numba'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=repo_root, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_fine_tunings_on_the_same_data_are_told_apart_by_seed(tmp_path, no_figures):
    def score(variant: str, seed: int, f1: float, digest: str) -> dict:
        summary = {"test_f1": f1, "num_contexts": 9, "data_digest": f"{digest} {seed}", "leaks": ""}
        return {"variant": variant, "axes": {}, "seed": seed, "summary": summary}

    cells = [score("sets", seed, 0.5 + 0.1 * seed, "one") for seed in range(3)]
    cells += [score("pairs", seed, 0.5 + 0.05 * seed, "one") for seed in range(3)]
    cells += [score("unfinished", seed, 0.5 + 0.05 * seed, "one") for seed in range(3)]
    del cells[-1]["summary"]
    cells += [score("other texts", seed, 0.9, "two") for seed in range(3)]
    settings = {"task": "finetune", "seeds": 3, "analysis": {"join_variants": False}}
    study = write_study(tmp_path / "scored", cells, **settings)
    readme = tmp_path / "README.md"
    readme.write_text("<!-- hgscale report scored -->\n<!-- end -->\n")
    told = report(ReportConfig(study=[str(study)], into=str(readme))).text()
    assert "Test F1: at most 0.900 (other texts)." in told
    assert "No cell has finished" not in told
    for text in (told, readme.read_text()):
        # 0, -0.05 and -0.1: half-width 4.303 x 0.05 / sqrt(3), by Student's t.
        assert "Test F1, pairs minus sets, paired by seed: -0.050 [-0.174, 0.074]." in text
        # 0 and -0.05: 12.706 x 0.05 / 2.
        assert "Test F1, unfinished minus sets, paired by seed: -0.025 [-0.343, 0.293]." in text
        assert text.count(" minus ") == 2
