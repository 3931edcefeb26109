"""Each kind of bad scan is found, named and given a remedy, on instances that vary; good ones raise none."""

from __future__ import annotations

import numpy as np
import pytest
from bad_scans import KINDS, good

from ptycho.errors import DataError
from ptycho.scan.findings import Finding, doubts
from ptycho.scan.raw_data import RawData

VARIANTS = 2


def check(kind: str, variant: int) -> list[Finding] | str:
    """Findings of an instance of a kind, or the message that refuses it."""
    number = (sorted(KINDS).index(kind) + variant) % 4
    arrays = good(number)
    rng = np.random.default_rng([number, variant, 5])
    arrays |= KINDS[kind].make(arrays, rng)
    arrays.pop("truth")
    try:
        return RawData(**arrays).check()
    except DataError as error:
        return str(error)


@pytest.mark.parametrize("number", range(4))
def test_the_good_scans_raise_nothing(number: int) -> None:
    arrays = good(number)
    arrays.pop("truth")
    assert doubts(RawData(**arrays).check()) == []


@pytest.mark.parametrize("variant", range(VARIANTS))
@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_is_named(kind: str, variant: int) -> None:
    expected = KINDS[kind]
    found = check(kind, variant)
    if expected.finding is None:
        assert isinstance(found, str) and expected.message in found, found
        assert ":" in found and "\n" not in found
        return
    assert not isinstance(found, str), found
    named = [one for one in found if one.kind == expected.finding]
    assert named, [str(one) for one in found]
    assert named[0].severity == expected.severity
    assert expected.message in str(named[0])
    assert named[0].where and named[0].remedy and "\n" not in str(named[0])
