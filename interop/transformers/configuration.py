"""The configuration of pairform's models in transformers."""

from collections.abc import Mapping
from typing import Any

from transformers import PreTrainedConfig

from pairform.assemblies.checkpoints.writing.config_file import MODEL_TYPE, config_of
from pairform.assemblies.specs.model import ModelSpec
from pairform.registry import InputError, Problem, shorten


class PairformConfig(PreTrainedConfig):
    """A model's spec, with the fields that transformers and libraries built on it read.

    Attributes:
        spec: the spec's document, from which the other fields follow: vocab_size, hidden_size, is_encoder_decoder and more.
    """

    model_type = MODEL_TYPE
    has_no_defaults_at_init = True

    def __init__(self, spec: Mapping[str, Any] | ModelSpec | None = None, **kwargs: Any) -> None:
        """
        Args:
            spec: the spec, or its document.

        Raises:
            SpecError: the document is no valid spec.
            InputError: there is none.
        """
        if spec is None:
            raise InputError(
                Problem("PairformConfig", "no spec", "PairformConfig(spec=...)", "pairform.load_spec reads a preset or a file.")
            )
        if not isinstance(spec, Mapping | ModelSpec):
            raise InputError(Problem("spec", shorten(spec), "a spec or its document"))
        valid = spec if isinstance(spec, ModelSpec) else ModelSpec.read(spec)
        self.spec: dict[str, Any] = valid.document()
        super().__init__(**{**config_of(valid), **kwargs, "spec": self.spec})

    @property
    def model_spec(self) -> ModelSpec:
        """The spec as an object."""
        return ModelSpec.read(self.spec)
