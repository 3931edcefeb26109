"""The unit of diffraction data is decided in one place and said aloud where it was a guess."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from ptycho.errors import DataError
from ptycho.scan.units import decide_unit, to_amplitude


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int32", "int64"])
def test_integers_are_counts(dtype):
    assert decide_unit(np.ones((2, 4, 4), dtype)) == "counts"


def test_bad_pixels_mean_counts():
    assert decide_unit(np.ones((2, 4, 4), np.float32), has_bad_pixels=True) == "counts"


@pytest.mark.parametrize("unit", ["counts", "amplitude"])
@pytest.mark.parametrize("bad", [True, False])
def test_declared_unit_of_floats_wins(unit, bad):
    assert decide_unit(np.ones((2, 4, 4)), declared=unit, has_bad_pixels=bad) == unit


def test_silent_float_is_amplitude_and_logged(caplog):
    with caplog.at_level(logging.INFO, logger="ptycho.scan.units"):
        assert decide_unit(np.full((2, 4, 4), 1.5, np.float32)) == "amplitude"
    assert "read as amplitude" in caplog.text
    assert caplog.records[0].levelno == logging.INFO


def test_silent_float_that_looks_like_counts_warns(caplog):
    assert decide_unit(np.full((2, 4, 4), 7.0, np.float32)) == "amplitude"
    assert caplog.records[0].levelno == logging.WARNING and "diffraction_unit='counts'" in caplog.text


def test_a_declared_unit_is_not_logged(caplog):
    with caplog.at_level(logging.INFO, logger="ptycho.scan.units"):
        decide_unit(np.full((2, 4, 4), 7.0, np.float32), declared="counts")
    assert caplog.text == ""


@pytest.mark.parametrize(
    "array, declared, message",
    [
        (np.ones((1, 2, 2)), "photons", "must be 'counts' or 'amplitude'"),
        (np.ones((1, 2, 2), int), "amplitude", "whole numbers are counts"),
        (np.ones((1, 2, 2), complex), None, "take the modulus"),
        (np.ones((1, 2, 2), bool), None, "dtype bool"),
        (np.ones((1, 2, 2), object), None, "dtype object"),
    ],
)
def test_refusals(array, declared, message):
    with pytest.raises(DataError, match=message):
        decide_unit(array, declared)


def test_amplitude_is_the_root_of_counts_whatever_the_dtype():
    counts = np.arange(2 * 32 * 32).reshape(2, 32, 32)
    expected = np.sqrt(counts.astype(np.float64)).astype(np.float32)
    for dtype in ("uint16", "int32", "float64"):
        np.testing.assert_array_equal(to_amplitude(counts.astype(dtype), "counts"), expected)


def test_amplitude_stays_as_it_is():
    given = np.ones((2, 4, 4), np.float32)
    assert to_amplitude(given, "amplitude") is given
