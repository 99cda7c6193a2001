"""Bad inputs at random: each is handled, or refused by a `PairformError` that is short, quick and printable.

`python -m tests.fuzz` tries others than the ones here.
"""

import pytest

from tests.fuzz.inputs import KINDS
from tests.fuzz.run import faults

SEED = 20260


@pytest.mark.parametrize("batch", range(4))
@pytest.mark.parametrize("kind", KINDS)
def test_bad_inputs_are_handled_or_refused(kind: str, batch: int) -> None:
    found = [line for number in range(batch * 18, batch * 18 + 18) for line in faults(kind, SEED, number)]
    assert not found, "\n".join(found)
