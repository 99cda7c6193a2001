"""How BERT, RoBERTa and XLM-RoBERTa differ."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pairform.assemblies.families.bert.config import BertConfig, RobertaConfig, XLMRobertaConfig
from pairform.registry import Problem, SpecError


@dataclass(frozen=True)
class Kind:
    """One of these families.

    classes:        the prefix of transformers' class names.
    prefix:         of all tensors but the head's.
    causal_lm:      what follows the prefix in the name of the class with a causal language model's head.
    after_padding:  whether the first position has the row after that of the padding token's id.
    own_activation: whether the head of the masked language model has `hidden_act`; else gelu.
    """

    model_type: str
    classes: str
    config: type[BertConfig]
    prefix: str
    causal_lm: str = "ForCausalLM"
    after_padding: bool = True
    own_activation: bool = False

    def offset(self, config: Mapping[str, Any]) -> int:
        """The row of the first position."""
        if not self.after_padding:
            return 0
        if config["pad_token_id"] is None:
            expected = "a token: the first position has the row after its id"
            raise SpecError(Problem("pad_token_id", "null", expected))
        return int(config["pad_token_id"]) + 1


BERT = Kind("bert", "Bert", BertConfig, "bert.", "LMHeadModel", after_padding=False, own_activation=True)
ROBERTA = Kind("roberta", "Roberta", RobertaConfig, "roberta.")
XLM_ROBERTA = Kind("xlm-roberta", "XLMRoberta", XLMRobertaConfig, "roberta.")
KINDS = (BERT, ROBERTA, XLM_ROBERTA)
