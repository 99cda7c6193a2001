"""A small folder of every family, and the ways in which its config.json is changed."""

import json
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from transformers import EmbeddingGemma2Model, EmbeddingGemma2TextModel

from tests import checkpoints
from tests.families import (
    test_bart,
    test_bert,
    test_embedding_gemma2,
    test_encoder_decoder,
    test_gemma4,
    test_gpt2,
    test_mixtures,
    test_modern_encoders,
    test_phi3,
    test_plain_decoders,
)
from tests.parity import test_llama_like, test_t5
from tests.parity.pictures import reference

FEW: dict[str, Any] = {"num_hidden_layers": 2}
MIXED: dict[str, Any] = FEW | {"layer_types": ["sliding_attention", "full_attention"]}
PLAIN: dict[str, Any] = FEW | {"attn_logit_softcapping": None}
"""Without a softcap, transformers runs its sdpa kernel, which reads some fields in its own way."""
WINDOWED: dict[str, Any] = {"use_sliding_window": True, "sliding_window": 4, "no_rope_layers": [1, 0]}
WIDE: dict[str, Any] = MIXED | {"attention_k_eq_v": True, "num_global_key_value_heads": 1, "final_logit_softcapping": 5.0}
ROUTED: dict[str, Any] = WIDE | {
    "enable_moe_block": True,
    "num_experts": 4,
    "top_k_experts": 2,
    "moe_intermediate_size": 16,
    "hidden_size_per_layer_input": 0,
}
SHARED: dict[str, Any] = {
    "num_hidden_layers": 4,
    "layer_types": MIXED["layer_types"] * 2,
    "num_kv_shared_layers": 2,
    "use_double_wide_mlp": True,
}
"""Gemma 4 as the 12B, the 26B and the E2B have it."""
SOME: dict[str, Any] = FEW | {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1}


def t5gemma2_encoder(folder: Path) -> Path:
    """transformers gives an encoder alone the end of image 256000."""
    whole = checkpoints.t5gemma2(folder / "whole", encoder=MIXED, decoder=MIXED, pictures={"eoi_token_index": 256_000})
    reference(whole).get_encoder().save_pretrained(folder)
    return folder


def gemma4(folder: Path, model_type: str = "gemma4_text", **fields: Any) -> Path:
    """A text model, or one with towers. As in published files, fields of its own describe the global layers."""
    if model_type.endswith("_text"):
        classes = "Gemma4Unified" if "unified" in model_type else "Gemma4"
        return test_gemma4.create(folder, classes=classes, **fields)
    file = test_gemma4.beside_towers(folder, model_type, **fields) / "config.json"
    config = json.loads(file.read_text())
    del config["text_config"]["per_layer_config"]
    names = ("global_head_dim", "num_global_key_value_heads")
    config["text_config"] |= {name: fields.get(name, test_gemma4.SMALL.get(name)) for name in names}
    file.write_text(json.dumps(config))
    return folder


def embedding_gemma2(folder: Path, kind: type[Any], **fields: Any) -> Path:
    types = ["sliding_attention", "full_attention"]
    return test_embedding_gemma2.written(folder, 0, kind, depth=2, **{"layer_types": types, "sliding_window": 2, **fields})


FOLDERS: Mapping[str, Callable[[Path], Path]] = {
    "gemma2": partial(checkpoints.gemma2, **FEW),
    "gemma3_text": partial(checkpoints.gemma3_text, **MIXED),
    "gemma3": partial(checkpoints.gemma3, text=MIXED),
    "t5gemma": partial(checkpoints.t5gemma, encoder=PLAIN, decoder=PLAIN),
    "t5gemma2": partial(checkpoints.t5gemma2, encoder=MIXED, decoder=MIXED),
    "t5gemma2_encoder": t5gemma2_encoder,
    "gemma4": partial(gemma4, model_type="gemma4", **ROUTED),
    "gemma4_text": partial(gemma4, **SHARED),
    "gemma4_unified": partial(gemma4, model_type="gemma4_unified", **WIDE),
    "gemma4_unified_text": partial(gemma4, model_type="gemma4_unified_text", **WIDE),
    "embedding_gemma2": partial(embedding_gemma2, kind=EmbeddingGemma2Model),
    "embedding_gemma2_text": partial(embedding_gemma2, kind=EmbeddingGemma2TextModel),
    "phi3": partial(test_phi3.create, **FEW, **test_phi3.LONGROPE, sliding_window=4),
    "gemma": partial(test_plain_decoders.create, family="gemma", **FEW),
    "olmo2": partial(test_plain_decoders.create, family="olmo2", **FEW),
    "olmo3": partial(test_plain_decoders.create, family="olmo3", **MIXED, sliding_window=4),
    "smollm3": partial(test_plain_decoders.create, family="smollm3", **FEW, **WINDOWED),
    "granite": partial(test_plain_decoders.create, family="granite", **FEW, attention_multiplier=0.2),
    "modernbert": partial(test_modern_encoders.create, family="modernbert", kind="ForMaskedLM", **FEW),
    "modernbert-decoder": partial(test_modern_encoders.create, family="modernbert-decoder", kind="ForCausalLM", **FEW),
    "eurobert": partial(test_modern_encoders.create, family="eurobert", kind="ForMaskedLM", **FEW),
    "bert": partial(test_bert.create, family="bert", kind="ForSequenceClassification"),
    "roberta": partial(test_bert.create, family="roberta"),
    "xlm-roberta": partial(test_bert.create, family="xlm-roberta", kind="ForTokenClassification"),
    "encoder-decoder": partial(test_encoder_decoder.create, first="roberta", second="bert"),
    "gpt2": partial(test_gpt2.create, n_layer=2),
    "mixtral": partial(test_mixtures.create, family="mixtral", **FEW, sliding_window=4),
    "qwen3_moe": partial(
        test_mixtures.create, family="qwen3_moe", **FEW, mlp_only_layers=[0], use_sliding_window=True, sliding_window=4
    ),
    "llama": partial(test_llama_like.create, family="llama", **FEW),
    "mistral": partial(test_llama_like.create, family="mistral", **FEW, sliding_window=4),
    "qwen2": partial(test_llama_like.create, family="qwen2", **SOME),
    "qwen3": partial(test_llama_like.create, family="qwen3", **SOME),
    "t5": partial(test_t5.create, kind="t5", num_layers=2, num_decoder_layers=1),
    "mt5": partial(test_t5.create, kind="mt5", num_layers=2, num_decoder_layers=1),
    "umt5": partial(test_t5.create, kind="umt5", num_layers=2, num_decoder_layers=1),
    **{
        each.lower(): partial(test_bart.create, classes=each, **test_bart.SMALL)
        for each in ("Bart", "MBart", "Marian", "Pegasus")
    },
    "m2m_100": partial(test_bart.create, classes="M2M100", **test_bart.SMALL),
}

OTHERS: Mapping[str, tuple[Any, ...]] = {
    "architectures": (["Nothing"],),
    "attn_logit_softcapping": (2.0,),
    "dense_act_fn": ("silu",),
    "dtype": ("bfloat16",),
    "feed_forward_proj": ("silu",),
    "final_logit_softcapping": (2.0,),
    "hidden_act": ("relu", "nothing"),
    "hidden_activation": ("relu", "nothing", None),
    "layer_types": (["full_attention", "sliding_attention"], None),
    "rope_type": ("dynamic", "nothing"),
    "sliding_window": (3, None),
    "summary_activation": ("tanh",),
    "use_bidirectional_attention": (True, "all"),
}
"""The values to try, where a field's type does not give one."""
ADDED: Mapping[str, tuple[Any, ...]] = {
    "add_cross_attention": (True,),
    "attention_bias": (True,),
    "attention_dropout": (0.3,),
    "attention_multiplier": (0.5,),
    "attn_logit_softcapping": (2.0,),
    "dropout_rate": (0.3,),
    "embedding_multiplier": (2.0,),
    "final_logit_softcapping": (2.0,),
    "head_dim": (9,),
    "hidden_act": ("relu",),
    "hidden_activation": ("relu",),
    "hidden_size": (33,),
    "image_token_id": (7,),
    "is_causal": (False, True),
    "is_decoder": (False, True),
    "layer_norm_eps": (0.1,),
    "layer_types": (["full_attention"] * 2,),
    "logits_scaling": (2.0,),
    "max_window_layers": (1,),
    "mlp_bias": (True,),
    "num_attention_heads": (2,),
    "num_experts": (4,),
    "num_hidden_layers": (1,),
    "num_labels": (3,),
    "original_max_position_embeddings": (8,),
    "partial_rotary_factor": (0.5,),
    "quantization_config": ({"quant_method": "gptq", "bits": 4},),
    "query_pre_attn_scalar": (7,),
    "rms_norm_eps": (0.1,),
    "rope_local_base_freq": (100.0,),
    "rope_scaling": ({"type": "linear", "factor": 2.0},),
    "rope_theta": (100.0,),
    "scale_embedding": (True,),
    "sliding_window": (3,),
    "sliding_window_pattern": (1,),
    "tie_word_embeddings": (True, False),
    "torch_dtype": ("bfloat16",),
    "use_bidirectional_attention": (True,),
    "use_cache": (False,),
    "use_sliding_window": (True,),
}
"""Fields that a file may hold though its family's own files do not."""
TOWERS = ("vision_config", "audio_config")
PARTS = ("encoder", "decoder", "text_config", "vision_config")
ABSENT = ...


class Mutation(NamedTuple):
    """A field by its path, and the value that it gets, or `ABSENT`."""

    path: tuple[str, ...]
    value: Any

    def __str__(self) -> str:
        name = ".".join(self.path)
        return name if self.value is ABSENT else f"{name} = {json.dumps(self.value)}"


def mutations(config: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[Mutation]:
    """Every field left out, every field with another value, and fields added."""
    for name, value in config.items():
        here = (*path, name)
        yield Mutation(here, ABSENT)
        if isinstance(value, dict):
            yield from mutations(value, here)
        else:
            yield from (Mutation(here, other) for other in OTHERS.get(name, another(value)) if other != value)
    if not path or path[-1] in PARTS:
        for name, values in ADDED.items():
            yield from (Mutation((*path, name), value) for value in values if name not in config)


def another(value: Any) -> tuple[Any, ...]:
    match value:
        case bool():
            return (not value,)
        case int():
            return (value + 1,)
        case float():
            return (value * 0.5 + 0.25,)
        case str():
            return ("nothing",)
        case None:
            return (1,)
        case _:
            return ()
