"""Models are published as one commit and load from the hub as they were."""

from pathlib import Path

import pairform
from tests.hub.server import Hub


def same_weights(one: pairform.Model, other: pairform.Model) -> bool:
    mine, theirs = one.state_dict(), other.state_dict()
    return mine.keys() == theirs.keys() and all(mine[name].equal(theirs[name]) for name in mine)


def test_a_pushed_model_loads_as_it_was(hub: Hub, pair: Path) -> None:
    done = pairform.push(pair, "lab/pair")
    assert done.url == f"{hub.url}/lab/pair/tree/{done.commit}"
    assert same_weights(pairform.load("lab/pair"), pairform.load(pair))
    assert same_weights(pairform.load(f"lab/pair@{done.commit}"), pairform.load(pair))
    assert pairform.verify("lab/pair").ok
    assert pairform.load_spec("lab/pair") == pairform.load_spec(pair)
    assert set(done.files) == hub.repositories["lab/pair"].main.keys() - {".gitattributes"}
