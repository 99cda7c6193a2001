"""The reference has every public name, and each says what it is, what it returns and which errors it raises."""

import inspect
import re

import pytest

from tests.site.public_names import documented, found, functions, identity, imported, offered, raised

DOCUMENTED = documented()
NAMES_A_RESULT = re.compile(
    r"(The|A|An|As|At|Every|Each|Number|Names?|Whether|Why|What|How|True|False|Bytes|Largest|Of|Our|Their|These|Those|Tokens"
    r"|Values|Parameters|Plain|Problems|Special|Differences|Lengths|Learning|Tensors|Optimiser|Text|One|Its|Class|Not)\b|`|config"
)
"""How a docstring begins that says what the function gives, instead of what it does."""


def test_every_public_name_stands_in_the_reference_once() -> None:
    entries = [identity(path) for path in DOCUMENTED]
    assert sorted({path for path in [*offered(), *imported()] if identity(path) not in entries}) == []
    assert sorted({path for path, entry in zip(DOCUMENTED, entries, strict=True) if entries.count(entry) > 1}) == []
    assert len(entries) > 150


@pytest.mark.parametrize("path", DOCUMENTED)
def test_a_name_says_what_it_is(path: str) -> None:
    value = found(path)
    if inspect.isclass(value):
        assert vars(value).get("__doc__")
    for name, function, docstring in functions(path):
        assert docstring, name
        gives = str(inspect.get_annotations(function).get("return")) not in ("None", "collections.abc.Iterator[None]")
        assert not gives or "Returns" in docstring or NAMES_A_RESULT.match(docstring), name
        for error in raised(function):
            bases = getattr(function.__globals__.get(error), "__mro__", ())
            assert any(base.__name__ in docstring for base in bases) or error in docstring, (name, error)
