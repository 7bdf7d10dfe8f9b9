from pathlib import Path

import numpy as np
import pytest

from hgscale.files import write_json
from hgscale.hypergraph import io
from hgscale.hypergraph.recovery.conditionals import Recovered
from hgscale.hypergraph.structure import Hypergraph
from hgscale.pretrain.recover import bits_per_parameter, write_recovered

WORLD = Hypergraph.from_edges([[0, 1], [1, 2]], [1, 3])


def recovered(*weights: float) -> Recovered:
    on_support = np.array(weights)
    return Recovered(on_support, 1 - on_support.sum(), None, None, "bfs")


def test_what_was_recovered_is_written_normalised(tmp_path: Path) -> None:
    write_recovered(WORLD, recovered(0.2, 0.3), tmp_path / "recovered.json")
    assert io.read(tmp_path / "recovered.json").weights == pytest.approx([0.4, 0.6])


def test_a_read_out_that_recovers_nothing_writes_nothing(tmp_path: Path) -> None:
    write_recovered(WORLD, recovered(0.0, 0.0), tmp_path / "recovered.json")
    assert not list(tmp_path.iterdir())


def test_bits_are_shared_among_parameters_and_missing_where_they_are_not_known() -> None:
    assert bits_per_parameter(300.0, 200) == 1.5
    assert bits_per_parameter(None, 200) is None


def test_a_number_that_is_not_one_is_never_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "summary.json", {"recovery_l1": float("nan")})
    assert not (tmp_path / "summary.json").exists()
