"""Spec documents with one thing wrong, drawn at random."""

import copy
from collections.abc import Iterator
from functools import cache
from typing import Any

from hypothesis import strategies as st

import pairform

Path = tuple[str | int, ...]
WRONG: list[Any] = ["x", "", -1, 0, 1.5, True, None, [], {}, [1, 2, 3], {"name": "nothing"}, float("nan"), 10**30]


def paths(value: Any, at: Path = ()) -> Iterator[Path]:
    """Every place in a document."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield (*at, key)
        yield from paths(item, (*at, key))


@cache
def expanded(preset: str) -> tuple[dict[str, Any], list[Path]]:
    """A preset's expanded form, not to be changed, and every place in it."""
    document = pairform.load_spec(preset).document()
    return document, list(paths(document))


@st.composite
def broken_documents(draw: st.DrawFn, preset: str) -> tuple[str, dict[str, Any]]:
    """A preset's expanded form with one value replaced, removed or joined by an unknown one, and what was done."""
    whole, places = expanded(preset)
    document = copy.deepcopy(whole)
    path = draw(st.sampled_from(places))
    *outer, last = path
    holder: Any = document
    for key in outer:
        holder = holder[key]
    what = draw(st.sampled_from(["replaced", "removed", "joined"]))
    if what == "replaced":
        holder[last] = draw(st.sampled_from(WRONG))
    elif what == "removed":
        del holder[last]
    elif isinstance(holder, dict):
        holder["unknown_field"] = 1
    else:
        holder.append("unknown")
    return f"{path} {what}", document
