"""Rotary positions and their scalings between config.json and our specs, for all families."""

from collections.abc import Mapping
from math import log, sqrt
from typing import Any

from pairform.registry import Problem, SpecError, shorten

LENGTH = "original_max_position_embeddings"
SCALINGS: Mapping[str, Mapping[str, str]] = {
    "default": {},
    "linear": {"factor": "factor"},
    "dynamic": {"factor": "factor"},
    "yarn": {
        "factor": "factor",
        "original_length": LENGTH,
        "beta_fast": "beta_fast",
        "beta_slow": "beta_slow",
        "attention": "attention_factor",
        "truncate": "truncate",
    },
    "llama3": {
        "factor": "factor",
        "original_length": LENGTH,
        "low_frequency": "low_freq_factor",
        "high_frequency": "high_freq_factor",
    },
    "longrope": {
        "short": "short_factor",
        "long": "long_factor",
        "original_length": LENGTH,
        "attention": "attention_factor",
    },
}
"""Our fields of each scaling with transformers' names for them. Dynamic has its length from `max_position_embeddings`."""


def rope(config: Mapping[str, Any], where: str = "rope_parameters", *, partial: bool = False) -> dict[str, Any]:
    """theta and scaling, from `rope_parameters` or the older `rope_theta` and `rope_scaling`.

    where:   what to call the parameters in an error.
    partial: whether `partial_rotary_factor` is read; else it must be 1.
    """
    # the older field is preferred where a file has both, as in transformers
    parameters = config.get("rope_scaling") or config.get("rope_parameters") or {}
    kind = parameters.get("rope_type") or parameters.get("type") or "default"
    theta = parameters.get("rope_theta") or config.get("rope_theta") or 10000.0
    if kind not in SCALINGS:
        raise SpecError(Problem(f"{where}.rope_type", shorten(kind), f"one of {', '.join(SCALINGS)}"))
    part = parameters.get("partial_rotary_factor") or config.get("partial_rotary_factor")
    if part not in (None, 1) and not partial:
        why = "In this family transformers rotates the whole head whatever this says, or fails."
        raise SpecError(Problem(f"{where}.partial_rotary_factor", repr(part), "1 or nothing", why))
    found = {ours: parameters.get(theirs) for ours, theirs in SCALINGS[kind].items()}
    if "factor" in found and found["factor"] is None:
        raise SpecError(Problem(f"{where}.factor", "nothing", f"a number: rope_type is {kind!r}"))
    if "original_length" in found:
        # as in transformers, the field of the stack is preferred to that of its scaling
        found["original_length"] = config.get(LENGTH) or found["original_length"] or config.get("max_position_embeddings")
    if kind == "dynamic":
        found["original_length"] = config.get("max_position_embeddings")
    if kind == "yarn" and found["attention"] is None:
        found["attention"] = stretched_attention(parameters)
    if kind == "longrope":
        check_longrope(parameters, where)
        length = found["original_length"]
        if found["attention"] is None and length is not None:
            found["attention"] = longrope_attention(config, parameters, length)
    scaling = {ours: value for ours, value in found.items() if value is not None}
    return {"theta": theta, "scaling": {"name": kind, **scaling}} | ({"fraction": part or 1.0} if partial else {})


def check_longrope(parameters: Mapping[str, Any], where: str) -> None:
    for field in ("short_factor", "long_factor"):
        if parameters.get(field) is None:
            raise SpecError(Problem(f"{where}.{field}", "nothing", "a list of numbers: rope_type is 'longrope'"))


def longrope_attention(config: Mapping[str, Any], parameters: Mapping[str, Any], length: int) -> float:
    """LongRoPE's factor on queries and keys where a configuration gives none."""
    factor = parameters.get("factor") or (config.get("max_position_embeddings") or length) / length
    return sqrt(1 + log(factor) / log(length)) if factor > 1 else 1.0


def stretched_attention(parameters: Mapping[str, Any]) -> float | None:
    """YaRN's factor on queries and keys where a configuration gives two weights of it, as DeepSeek's."""
    above, below = parameters.get("mscale"), parameters.get("mscale_all_dim")
    if not above or not below:
        return None
    grown = log(parameters["factor"]) / 10
    return float((above * grown + 1) / (below * grown + 1))


def rope_config(position: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `rope`."""
    scaling = position.get("scaling", {})
    kind = scaling.get("name", "default")
    fields = {theirs: scaling.get(ours) for ours, theirs in SCALINGS.get(kind, {}).items()}
    given = {theirs: value for theirs, value in fields.items() if value is not None}
    return {"rope_type": kind, "rope_theta": position.get("theta"), **given}
