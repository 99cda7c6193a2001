"""Settings of transformers' `GenerationConfig` that pairform does not have."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Unsupported:
    """A setting that changes the tokens and that pairform does not support.

    neutral: the value that changes nothing.
    why:     what is not supported.
    """

    neutral: Any
    why: str


MOVED = "which transformers 5 moved to code that is downloaded and executed"
UNSUPPORTED = {
    "num_beam_groups": Unsupported(1, f"diverse beam search, {MOVED}"),
    "diversity_penalty": Unsupported(0.0, f"diverse beam search, {MOVED}"),
    "constraints": Unsupported(None, f"constrained beam search, {MOVED}"),
    "force_words_ids": Unsupported(None, f"constrained beam search, {MOVED}"),
    "penalty_alpha": Unsupported(0.0, f"contrastive search, {MOVED}"),
    "dola_layers": Unsupported(None, f"DoLa decoding, {MOVED}"),
    "guidance_scale": Unsupported(1, "classifier-free guidance"),
    "watermarking_config": Unsupported(None, "watermarks"),
    "token_healing": Unsupported(False, "token healing"),
    "remove_invalid_values": Unsupported(False, "the removal of NaN and infinite scores, which are an error"),
}
"""By name. `prefix_allowed_tokens_fn` and `logits_processor` replace constraints."""

HARMLESS = frozenset(
    {
        *("transformers_version", "_from_model_config", "_commit_hash", "generation_mode"),
        *("use_cache", "cache_implementation", "cache_config", "max_cache_len", "low_memory", "prefill_chunk_size"),
        *("compile_config", "disable_compile", "continuous_batching_config"),
        *("output_attentions", "output_hidden_states"),
        # assisted decoding gives the same tokens
        *("is_assistant", "num_assistant_tokens", "num_assistant_tokens_schedule", "assistant_confidence_threshold"),
        *("assistant_early_exit", "assistant_lookbehind", "target_lookbehind", "assistant_ensemble_weight"),
        *("speculation_type", "use_mtp"),
    }
)
"""Names of settings that do not change the tokens: those of caches, compilation, assistants and other outputs."""
