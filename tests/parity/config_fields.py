"""Every field of config.json, changed: pairform follows it, or ignores it, as transformers does, or refuses it."""

import copy
import json
import warnings
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor

import pairform
from pairform.assemblies.families import FAMILIES
from tests import checkpoints
from tests.parity import test_llama_like, test_t5
from tests.parity.compare import batch

EQUAL = 2e-5
"""Of the largest logit: above what float32 rounds, below what a changed field does to wide random weights."""
FEW: dict[str, Any] = {"num_hidden_layers": 2}
LAYERS: dict[str, Any] = {"layer_types": ["sliding_attention", "full_attention"]}

FOLDERS: Mapping[str, Callable[[Path], Path]] = {
    "gemma2": partial(checkpoints.gemma2, **FEW),
    "gemma3_text": partial(checkpoints.gemma3_text, **FEW, **LAYERS),
    "gemma3": partial(checkpoints.gemma3, text=FEW | LAYERS),
    "t5gemma": partial(checkpoints.t5gemma, encoder=FEW, decoder=FEW),
    "t5gemma2": partial(checkpoints.t5gemma2, encoder=FEW | LAYERS, decoder=FEW | LAYERS),
    "llama": partial(test_llama_like.create, family="llama", **FEW),
    "mistral": partial(test_llama_like.create, family="mistral", **FEW, sliding_window=4),
    "qwen2": partial(test_llama_like.create, family="qwen2", **FEW, **test_llama_like.WINDOWED["qwen2"]),
    "qwen3": partial(test_llama_like.create, family="qwen3", **FEW, **test_llama_like.WINDOWED["qwen3"]),
    "t5": partial(test_t5.create, kind="t5"),
    "mt5": partial(test_t5.create, kind="mt5"),
}

OTHERS: Mapping[str, tuple[Any, ...]] = {
    "hidden_act": ("relu", "silu", "gelu", "nothing"),
    "hidden_activation": ("relu", "silu", "gelu", "nothing", None),
    "feed_forward_proj": ("relu", "gated-gelu", "gated-silu", "gelu_new"),
    "dense_act_fn": ("silu",),
    "sliding_window": (3, 5, None),
    "layer_types": (["full_attention", "sliding_attention"], ["full_attention"] * 2, None),
    "rope_type": ("linear", "dynamic", "yarn", "nothing"),
    "model_type": ("nothing",),
    "dtype": ("bfloat16",),
    "architectures": (["Nothing"], None),
    "attn_logit_softcapping": (2.0, None),
    "final_logit_softcapping": (2.0, None),
    "use_bidirectional_attention": (True, False),
}
"""Values beside those that a field's type gives."""
ADDED: Mapping[str, tuple[Any, ...]] = {
    "is_causal": (False, True),
    "is_decoder": (False, True),
    "add_cross_attention": (True,),
    "hidden_act": ("relu",),
    "hidden_activation": ("relu",),
    "rope_theta": (100.0,),
    "rope_scaling": ({"rope_type": "linear", "factor": 2.0}, {"type": "linear", "factor": 2.0}),
    "sliding_window": (3,),
    "use_sliding_window": (True, False),
    "max_window_layers": (1,),
    "attention_bias": (True,),
    "mlp_bias": (True,),
    "head_dim": (8,),
    "use_bidirectional_attention": (True,),
    "attn_logit_softcapping": (2.0,),
    "final_logit_softcapping": (2.0,),
    "query_pre_attn_scalar": (7,),
    "partial_rotary_factor": (0.5,),
    "attention_multiplier": (0.5,),
    "embedding_multiplier": (2.0,),
    "logits_scaling": (2.0,),
    "use_cache": (False,),
    "tie_word_embeddings": (True, False),
    "scale_embedding": (True,),
    "layer_norm_eps": (0.1,),
    "num_experts": (4,),
    "quantization_config": ({"quant_method": "gptq", "bits": 4},),
}
"""Fields that a file may hold though its family's configuration does not."""
INPUTS = 3, 14


def mutations(config: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every field with another value, every field left out (`...`), and fields added."""
    for name, value in config.items():
        here = (*path, name)
        yield here, ...
        if isinstance(value, dict):
            yield from mutations(value, here)
        else:
            for other in OTHERS.get(name, changed(value)):
                if other != value:
                    yield here, other
    if not path or "config" in path[-1] or path[-1] in ("encoder", "decoder"):
        for name, values in ADDED.items():
            for value in values if name not in config else ():
                yield (*path, name), value


def changed(value: Any) -> tuple[Any, ...]:
    match value:
        case bool():
            return (not value,)
        case int():
            return value + 1, max(value // 2, 1)
        case float():
            return (value * 0.5 + 0.25,)
        case str():
            return ("nothing",)
        case None:
            return (1,)
        case _:
            return ()


def with_field(config: Mapping[str, Any], path: tuple[str, ...], value: Any) -> dict[str, Any]:
    made = copy.deepcopy(dict(config))
    holder = made
    for key in path[:-1]:
        holder = holder[key]
    if value is ...:
        holder.pop(path[-1])
    else:
        holder[path[-1]] = value
    return made


class Comparison:
    """One family's small folder, run again with other configurations."""

    def __init__(self, family: str, folder: Path) -> None:
        self.folder = FOLDERS[family](folder / family)
        self.config: dict[str, Any] = json.loads((self.folder / "config.json").read_text())
        (self.architecture,) = self.config["architectures"]
        self.before = self.ours()
        self.base = distance(self.before, self.theirs())

    def inputs(self) -> dict[str, Tensor]:
        read = batch(rows=INPUTS[0], length=INPUTS[1])
        given: dict[str, Tensor] = read.inputs
        if "decoder" in self.config or self.config["model_type"] in ("t5", "mt5"):
            given |= batch(1, rows=INPUTS[0], length=INPUTS[1]).decoder_inputs
        return given

    def ours(self) -> Tensor:
        with torch.no_grad():
            logits = pairform.load(self.folder, kernel="eager")(**self.inputs()).logits
        assert logits is not None
        return logits.float()

    def theirs(self) -> Tensor:
        model: Any = getattr(transformers, self.architecture).from_pretrained(self.folder)
        if self.architecture.startswith("T5GemmaFor"):  # its windows reach one token further than those it was trained with
            model.config.encoder.sliding_window -= 1
        with torch.no_grad():
            logits: Tensor = model.eval()(**self.inputs()).logits
        return logits.float()

    def outcome(self, path: tuple[str, ...], value: Any) -> str:
        """heeded, ignored or refused; or how pairform and transformers differ."""
        (self.folder / "config.json").write_text(json.dumps(with_field(self.config, path, value)))
        try:
            ours = self.ours()
        except pairform.PairformError:
            return "refused"
        except Exception as error:
            return f"FAULT ours {type(error).__name__}: {str(error)[:80]}"
        try:
            theirs = self.theirs()
        except Exception as error:
            same = distance(ours, self.before) <= EQUAL
            return f"transformers fails ({type(error).__name__}), ours {'as before' if same else 'changes'}"
        apart = distance(ours, theirs)
        if apart > EQUAL:
            return f"DIFFERENT by {apart:.2g} (ours moved {distance(ours, self.before):.2g})"
        return "ignored" if distance(theirs, self.before) <= EQUAL else "heeded"


def distance(one: Tensor, other: Tensor) -> float:
    if one.shape != other.shape:
        return float("inf")
    return float((one - other).abs().max() / other.abs().max())


if __name__ == "__main__":
    import sys
    import tempfile
    import time

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    for family in sys.argv[1:] or FOLDERS:
        start = time.process_time()
        found = Comparison(family, Path(tempfile.mkdtemp()))
        print(f"=== {family} base difference {found.base:.2g}")
        count = 0
        for path, value in mutations(found.config):
            count += 1
            outcome = found.outcome(path, value)
            print(f"{'.'.join(path)} = {'absent' if value is ... else value!r}: {outcome}")
        print(f"=== {family}: {count} in {time.process_time() - start:.1f} s", FAMILIES.get(family) is not None)
