"""Registration with the Auto classes."""

import transformers
from transformers.models.auto import modeling_auto

from pairform.interop.transformers import modeling
from pairform.interop.transformers.configuration import PairformConfig

AUTO = {
    "AutoModel": modeling.PairformModel,
    "AutoModelForSeq2SeqLM": modeling.PairformForConditionalGeneration,
    "AutoModelForCausalLM": modeling.PairformForCausalLM,
    "AutoModelForMaskedLM": modeling.PairformForMaskedLM,
    "AutoModelForSequenceClassification": modeling.PairformForSequenceClassification,
    "AutoModelForTokenClassification": modeling.PairformForTokenClassification,
    "AutoModelForQuestionAnswering": modeling.PairformForQuestionAnswering,
}


def register() -> None:
    """Register the configuration and the classes. A second call changes nothing."""
    transformers.AutoConfig.register(PairformConfig.model_type, PairformConfig, exist_ok=True)
    for auto, model in AUTO.items():
        getattr(transformers, auto).register(PairformConfig, model, exist_ok=True)
    # Trainer shifts labels for label smoothing if the class is named here
    modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[PairformConfig.model_type] = "PairformForCausalLM"
