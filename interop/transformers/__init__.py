"""pairform's models as models of transformers. Importing this package registers them with the Auto classes."""

from pairform.interop.transformers.configuration import PairformConfig
from pairform.interop.transformers.modeling import (
    PairformForCausalLM,
    PairformForConditionalGeneration,
    PairformForMaskedLM,
    PairformForQuestionAnswering,
    PairformForSequenceClassification,
    PairformForTokenClassification,
    PairformModel,
    PairformPreTrainedModel,
)
from pairform.interop.transformers.registration import register

__all__ = [
    "PairformConfig",
    "PairformForCausalLM",
    "PairformForConditionalGeneration",
    "PairformForMaskedLM",
    "PairformForQuestionAnswering",
    "PairformForSequenceClassification",
    "PairformForTokenClassification",
    "PairformModel",
    "PairformPreTrainedModel",
]

register()
