"""Strokes keep apart what would lie on one another."""

import pytest

from hgscale.study import charts


@pytest.mark.parametrize(
    ("heights", "expected"),
    [
        ([10.0, 50.0], [10, 50]),
        ([10.0, 11.0, 12.0], [10, 20, 30]),
        ([90.0, 95.0], [90, 100]),
        ([98.0, 99.0, 100.0], [80, 90, 100]),  # pushed back into the frame
        ([-5.0], [0]),
        ([], []),
    ],
)
def test_names_are_pushed_a_gap_apart(heights, expected):
    assert charts._apart(heights, 10, 0, 100) == expected
