"""Checkpoints that cannot be read, recognised by their configuration or their tensors' names and refused with the reason."""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pairform.registry import CheckpointError, Problem, shorten

QUANTISATION_FIELDS = ("quantization_config", "compression_config")
QUANTISED_NAMES = {
    r"\.(qweight|qzeros|g_idx)$": "GPTQ or AWQ",
    r"\.(SCB|weight_format|absmax|quant_map|nested_absmax|nested_quant_map)$|\.quant_state\.": "bitsandbytes",
    r"\.(weight_packed|weight_shape|weight_zero_point)$": "compressed-tensors",
    r"\.(weight_scale|weight_scale_inv|input_scale)$": "FP8",
    r"\.(codebooks|codes)$": "AQLM",
    r"\.weight\._(data|scale|shift)$": "quanto",
    r"\.W_q$": "HQQ",
    r"_(blocks|scales)$": "MXFP4",
}
"""Suffixes of the tensors that replace or accompany a quantised weight, and the method that writes them."""
UNQUANTISED = "Use the model's checkpoint in bfloat16, float16 or float32; load(..., quantise='int8') then runs it in 8 bits."
WRAPPER_PREFIXES = {
    "_orig_mod.": "torch.compile",
    "module.": "DataParallel or DistributedDataParallel",
    "base_model.model.": "PEFT",
    "_fsdp_wrapped_module.": "FullyShardedDataParallel",
}
"""Prefixes of all names in a file that holds the state of a wrapped model instead of the model's."""


def refuse_quantised(config: Mapping[str, Any], file: Path) -> None:
    """Raise a `CheckpointError` that names the method if a config.json says that the folder's weights are quantised."""
    inner = [value for value in config.values() if isinstance(value, Mapping)]
    for part in (config, *inner):
        for field in QUANTISATION_FIELDS:
            if part.get(field) is not None:
                found = f"weights quantised by {method_of(part[field])}"
                raise CheckpointError(Problem(f"{file}: {field}", found, "plain weights", UNQUANTISED))


def method_of(settings: object) -> str:
    """The method that a quantization_config names."""
    if not isinstance(settings, Mapping):
        return shorten(settings)
    bits = next((bits for bits in ("4", "8") if settings.get(f"load_in_{bits}bit")), None)
    name = settings.get("quant_method") or ("bitsandbytes" if bits else None)
    if name is None:
        return "an unnamed method"
    return f"{name if isinstance(name, str) else shorten(name)}{f' ({bits} bits)' if bits else ''}"


def quantised_by(names: Iterable[str]) -> tuple[str, str] | None:
    """The first name that only quantised checkpoints have, and the method of quantisation."""
    for name in names:
        for pattern, method in QUANTISED_NAMES.items():
            if re.search(pattern, name):
                return name, method
    return None


def quantised_tensor(place: str, method: str) -> Problem:
    return Problem(place, f"a tensor of weights quantised by {method}", "plain weights", UNQUANTISED)


def refuse_wrapped(names: Sequence[str], file: Path) -> None:
    """Raise a `CheckpointError` if all names in a file start with the prefix of one wrapper."""
    for prefix, wrapper in WRAPPER_PREFIXES.items():
        if all(name.startswith(prefix) for name in names):
            found = f"names that all start with {prefix!r}, the prefix of {wrapper}"
            remedy = "Save the model inside the wrapper, or remove this prefix from the names."
            raise CheckpointError(Problem(str(file), found, "the model's own names", remedy))
