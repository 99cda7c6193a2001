"""Checkpoints with quantised weights: recognised by their configuration or their tensors' names, and refused."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pairform.registry import CheckpointError, Problem, shorten

FIELDS = ("quantization_config", "compression_config")
MARKS = {
    r"\.(qweight|qzeros|g_idx)$": "GPTQ or AWQ",
    r"\.(SCB|weight_format|absmax|quant_map|nested_absmax|nested_quant_map)$|\.quant_state\.": "bitsandbytes",
    r"\.(weight_packed|weight_shape|weight_zero_point)$": "compressed-tensors",
    r"\.(weight_scale|weight_scale_inv|input_scale)$": "FP8",
    r"\.(codebooks|codes)$": "AQLM",
    r"\.weight\._(data|scale|shift)$": "quanto",
    r"\.W_q$": "HQQ",
    r"_(blocks|scales)$": "MXFP4",
}
"""Ends of the names of what stands beside, or in the place of, a quantised weight, and the method that writes them."""
REMEDY = "Use the model's checkpoint in bfloat16, float16 or float32; load(..., quantise='int8') then runs it in eight bits."


def refuse_quantised(config: Mapping[str, Any], file: Path) -> None:
    """A `CheckpointError` that names the method, where a config.json says that the folder's weights are quantised."""
    inner = [value for value in config.values() if isinstance(value, Mapping)]
    for part in (config, *inner):
        for field in FIELDS:
            if part.get(field) is not None:
                found = f"weights quantised by {method(part[field])}"
                raise CheckpointError(Problem(f"{file}: {field}", found, "plain weights", REMEDY))


def method(settings: object) -> str:
    """The method that a quantization_config names."""
    if not isinstance(settings, Mapping):
        return shorten(settings)
    bits = next((bits for bits in ("4", "8") if settings.get(f"load_in_{bits}bit")), None)
    name = settings.get("quant_method") or ("bitsandbytes" if bits else None)
    if name is None:
        return "an unnamed method"
    return f"{name if isinstance(name, str) else shorten(name)}{f' ({bits} bits)' if bits else ''}"


def quantised_by(names: Iterable[str]) -> tuple[str, str] | None:
    """The first tensor's name that a method of quantisation gives, and the method."""
    for name in names:
        for mark, by in MARKS.items():
            if re.search(mark, name):
                return name, by
    return None


def quantised_tensor(file: Path, name: str, by: str) -> Problem:
    return Problem(f"{file}: {name}", f"a tensor of weights quantised by {by}", "plain weights", REMEDY)
