"""The names that transformers' configurations have for our activations."""

from collections.abc import Mapping

from pairform.registry import Problem, SpecError

ACTIVATIONS: Mapping[str, str] = {
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_new": "gelu_tanh",
    "gelu_python_tanh": "gelu_tanh",
    "gelu_accurate": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu": "gelu",
    "gelu_python": "gelu",
    "silu": "silu",
    "swish": "silu",
    "relu": "relu",
    "relu2": "relu_squared",
    "sigmoid": "sigmoid",
}
"""Of several names for one function the first is the one that is written. `gelu_fast` has ten digits of the constant."""
NAMES: Mapping[str, str] = {ours: theirs for theirs, ours in reversed(list(ACTIVATIONS.items()))}
"""The inverse."""


def activation_named(name: str, field: str) -> str:
    """Our name for transformers' activation `name`, found in `field`."""
    if name not in ACTIVATIONS:
        raise SpecError(Problem(field, repr(name), f"one of {', '.join(ACTIVATIONS)}"))
    return ACTIVATIONS[name]
