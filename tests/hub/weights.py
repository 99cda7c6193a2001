"""Comparison of models."""

import pairform


def same_weights(one: pairform.Model, other: pairform.Model) -> bool:
    mine, theirs = one.state_dict(), other.state_dict()
    return mine.keys() == theirs.keys() and all(mine[name].equal(theirs[name]) for name in mine)
