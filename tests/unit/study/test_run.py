"""How the end of a cell is written down."""

import json
from pathlib import Path

import pytest

from hgscale.cluster.pool import Outcome
from hgscale.errors import RunError
from hgscale.study.run import _write_end


def written(directory: Path, outcome: Outcome) -> dict:
    _write_end(directory, outcome, "abc")
    return json.loads((directory / "cells/f00d/cell.json").read_text())


@pytest.mark.parametrize(("seconds", "overhead_s"), [(5.5, 0.5), (1.0, None)])
def test_the_overhead_of_a_cell_that_went_on_from_an_earlier_try_is_not_known(
    tmp_path: Path, seconds: float, overhead_s: float | None
) -> None:
    (tmp_path / "cells/f00d").mkdir(parents=True)
    (tmp_path / "cells/f00d/summary.json").write_text('{"train_s": 5.0}')
    end = written(tmp_path, Outcome("f00d", None, 1, seconds))
    assert (end["status"], end["overhead_s"]) == ("FINISHED", overhead_s)


def test_a_failed_cell_leaves_its_error_and_no_overhead(tmp_path: Path) -> None:
    end = written(tmp_path, Outcome("f00d", RunError("out of memory"), 2, 1.0))
    assert (end["status"], end["error"], end["attempts"], end["overhead_s"]) == ("FAILED", "out of memory", 2, None)
