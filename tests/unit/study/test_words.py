"""Numbers and values as a reader sees them."""

import math

import pytest

from hgscale.study.words import digits, plain


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        ((1.0234, 0.9876, 1.0441), "1.02 [0.99, 1.04]"),
        ((0.98, 0.59, 1.36), "0.98 [0.59, 1.36]"),
        ((-0.49961, -0.512, -0.488), "-0.500 [-0.512, -0.488]"),
        ((0.012345, 0.0119, 0.0128), "0.0123 [0.0119, 0.0128]"),
        ((0.0001, -0.02, 0.02), "0.0001 [-0.0200, 0.0200]"),
        ((123_456, 120_000, 127_000), "123,000 [120,000, 127,000]"),
        ((1.5e-7, 1e-7, 2e-7), "1.50e-07 [1.00e-07, 2.00e-07]"),
        ((0.5, math.nan, math.nan), "0.500"),  # one seed
        ((0.5, None, None), "0.500"),
        ((0.25, 0.25, 0.25), "0.250"),  # known exactly
        ((-0.5, -math.inf, -0.4), "-0.500 [-\u221e, -0.400]"),
        ((-0.0001, -0.0002, 3.0), "0.00 [0.00, 3.00]"),
        ((0.0, 0.0, 0.0), "0"),
        ((3e-18, -2e-18, 5e-18), "0"),
    ],
)
def test_numbers_are_rounded_to_one_place(numbers, expected):
    assert digits(*numbers) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [(1_000_000, "1,000,000"), (1e5, "100,000"), (0.25, "0.25"), (True, "true"), (None, "-"), ("bfs", "bfs")],
)
def test_values_of_axes_are_shown_plainly(value, expected):
    assert plain(value) == expected
