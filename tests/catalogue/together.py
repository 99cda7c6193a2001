"""All registered blocks in few models, each of as many blocks as go together: for what takes long with every model."""

from collections.abc import Iterator
from functools import cache
from typing import Any

import pairform
from tests.catalogue.places import BLOCKS, Document, candidates, model, put, seeing

Block = tuple[str, str]


@cache
def together() -> list[tuple[list[Block], pairform.ModelSpec]]:
    """Each block is in one of the models."""
    left = {block: pairform.blocks(block[0])[block[1]].Spec.example() for block in BLOCKS}
    found = []
    while left:
        first = next(iter(left))
        document = next(iter(standing(first[0], left[first])))
        members: dict[Block, Document] = {first: left[first]}
        for block, example in left.items():
            for changed in added(document, block[0], example):
                wanted = members | {block: example}
                if valid(changed) and all(holds(changed, kind, each) for (kind, _), each in wanted.items()):
                    document, members = changed, wanted
                    break
        left = {block: example for block, example in left.items() if block not in members}
        found.append((list(members), pairform.load_spec(document)))
    return found


def standing(kind: str, example: Document) -> Iterator[Document]:
    """Documents that have the block, where it fits."""
    return (document for _, document in candidates(kind, example) if valid(document))


def added(document: Document, kind: str, example: Document) -> Iterator[Document]:
    """Copies of `document` changed as the documents that have the block differ from those that they were made of."""
    for _, other in candidates(kind, example):
        made_of = seeing() if "vision" in other.get("decoder", {}) else model(other["assembly"])
        if other["assembly"] == document["assembly"] and ("vision" in document["decoder"]) == ("vision" in made_of["decoder"]):
            changed = document
            for path, value in differences(made_of, other):
                changed = put(changed, path, value)
            yield changed


def differences(old: Any, new: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(old, dict) and isinstance(new, dict) and old.get("name") == new.get("name"):
        for key, value in new.items():
            yield from differences(old.get(key), value, f"{path}.{key}" if path else key)
    elif old != new:
        yield path, new


KEYS = {"attention": ("self_attention", "cross_attention"), "absolute_position": ("position",)}
"""Under which keys blocks of a kind stand, where not under the kind's name."""


def holds(document: Any, kind: str, block: Document) -> bool:
    """Whether the block stands anywhere in it."""
    if not isinstance(document, dict):
        return False
    here = [document[key] for key in KEYS.get(kind, (kind,)) if isinstance(document.get(key), dict)]
    return any(block.items() <= other.items() for other in here) or any(holds(each, kind, block) for each in document.values())


def valid(document: Document) -> bool:
    try:
        pairform.load_spec(document)
    except pairform.PairformError:
        return False
    return True
