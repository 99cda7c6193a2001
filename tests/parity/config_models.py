"""The models of a changed configuration over the weights of the unchanged folder, in both libraries, without reading files."""

import copy
from collections.abc import Mapping
from typing import Any

from torch import Tensor
from transformers.initialization import no_init_weights

import pairform
from pairform.assemblies.modeling.build import skeleton


class Models:
    """Two models of one folder, whose weights those of other configurations share."""

    def __init__(self, ours: pairform.Model, theirs: Any) -> None:
        self.base, self.kind = ours, type(theirs)
        self.weights = dict(ours.named_parameters())
        self.their_state: Mapping[str, Tensor] = {name: tensor.clone() for name, tensor in theirs.state_dict().items()}

    def ours(self, spec: pairform.ModelSpec) -> pairform.Model | None:
        """The model that `load` gives for the spec; None if it has other tensors, which `load` may refuse."""
        model = skeleton(spec)
        if {name: each.shape for name, each in model.named_parameters()} != {
            name: each.shape for name, each in self.weights.items()
        }:
            return None
        model.load_state_dict(self.weights, assign=True, strict=False)
        model.use_kernel("eager")
        return model

    def theirs(self, config: Mapping[str, Any]) -> Any:
        """transformers' model. An error if it has other tensors."""
        with no_init_weights():
            model = self.kind._from_config(self.kind.config_class.from_dict(copy.deepcopy(dict(config))))
        model.load_state_dict(self.their_state)
        return model.eval()


def dropouts(document: Any) -> frozenset[float]:
    """All dropout probabilities in a spec's document, without 0."""
    if isinstance(document, Mapping):
        found = [dropouts(value) if key != "dropout" else {float(value)} for key, value in document.items()]
    else:
        found = [dropouts(value) for value in document] if isinstance(document, list) else []
    return frozenset().union(*found) - {0.0}


def distance(one: Tensor, other: Tensor) -> float:
    """The largest difference over the largest value; infinite between shapes."""
    if one.shape != other.shape:
        return float("inf")
    return float((one - other).abs().max() / other.abs().max())
