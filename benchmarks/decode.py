"""Greedy decoding of 128 tokens against transformers' `generate`: its default, and a static cache with the step compiled.

Both sides get the same encoder output, so only the decoder with its attention to the source is timed. The share of the
bandwidth limit is the time that the machine needs to read the decoder's weights and all cached keys and values once per token,
divided by the time taken; both are measured in one run.

Greedy tokens may differ where two logits are equal up to rounding, and then all later tokens differ. Each token is therefore
checked against transformers' logits for the tokens before it: its logit must be the largest up to rounding.

    python -m benchmarks.decode [--only CASE ...] [--runs N] [--threads 2] [--device cpu] [--quick]
"""

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import CompileConfig
from transformers.modeling_outputs import BaseModelOutput

import pairform
from benchmarks import models
from benchmarks.cases import Benchmark, Case
from benchmarks.compare import Difference, Make, rounded
from benchmarks.options import Options
from benchmarks.rates import bandwidth

CASES: list[Case] = [
    {
        "source": source,
        "tokens": 128,
        "batch": batch,
        "dtype": "bfloat16",
        "runs": 3 if batch == 1 else 1 if source > 512 else 2,
    }
    for source in (512, 4096)
    for batch in (1, 8)
]
INT8 = "pairform int8 compiled"
ON_A_GPU: list[Case] = [
    {"preset": preset, "source": 512, "tokens": 128, "batch": batch, "dtype": "bfloat16"}
    | {"runs": 2, "folder": preset, "tolerance": 0.1}
    for preset, batch in (("t5gemma-2b-2b", 1), ("t5gemma-2b-2b", 8), ("t5gemma-9b-2b", 1))
]
QUICK: list[Case] = [{"source": 12, "tokens": 6, "batch": 2, "dtype": "float32"}]


def write(folder: Path, case: Case, options: Options) -> None:
    models.write(models.published(case), folder, case["dtype"], options.device)


def source(case: Case, device: str) -> tuple[Tensor, Tensor]:
    """A random encoder output with unit variance, as after a norm, and its mask. Its values do not affect the time."""
    encoder = models.published(case).encoder
    assert encoder is not None
    generator = torch.Generator().manual_seed(2)
    hidden = torch.randn(case["batch"], case["source"], encoder.width, generator=generator).to(getattr(torch, case["dtype"]))
    return hidden.to(device), torch.ones(case["batch"], case["source"], dtype=torch.long, device=device)


def settings(folder: Path, case: Case, options: Options) -> Mapping[str, Make]:
    device, patch = options.device, models.patch_for(case)
    default, ours = cache(lambda: models.theirs(folder, device)), cache(lambda: models.ours(folder, device, patch))
    prepacked = cache(lambda: models.ours(folder, device, patch, prepack=True))
    hidden, mask = source(case, device)

    def generate(model: Callable[[], Any], encoded: Any, **given: Any) -> Callable[[], Tensor]:
        def call() -> Tensor:
            written: Tensor = loaded.generate(
                attention_mask=mask, encoder_outputs=encoded, max_new_tokens=case["tokens"], **given
            )
            return written

        loaded = model()
        return call

    def peer(**given: Any) -> Callable[[], Tensor]:
        model = models.endless(default())
        return generate(lambda: model, BaseModelOutput(last_hidden_state=hidden), do_sample=False, **given)

    def static() -> Callable[[], Tensor]:
        compiled = CompileConfig()
        compiled._compile_all_devices = True  # by itself transformers compiles on accelerators only
        return peer(cache_implementation="static", compile_config=compiled)

    table: dict[str, Make] = {
        "pairform": lambda: generate(ours, hidden, eos_token_id=()),
        "pairform compiled": lambda: generate(ours, hidden, eos_token_id=(), compile=True),
        "pairform prepacked compiled": lambda: generate(prepacked, hidden, eos_token_id=(), compile=True),
        INT8: lambda: generate(
            lambda: pairform.load(folder, device=device, patch=patch, quantise="int8").eval(),
            hidden,
            eos_token_id=(),
            compile=True,
        ),
        "transformers": peer,
        "transformers static compiled": static,
    }
    slow = case["source"] > 512 and device == "cpu"  # compiled once more for each length, minutes each
    left = {"transformers static compiled"} if slow else {name for name in table if options.quick and "compiled" in name}
    left |= {INT8} if device == "cpu" else {"pairform prepacked compiled"}
    left |= {"transformers static compiled", INT8} if case.get("preset") == "t5gemma-9b-2b" else set()
    return {name: make for name, make in table.items() if name not in left}


def difference(folder: Path, case: Case, options: Options) -> Difference:
    """How far the logit of a generated token is below the largest logit, relative to the largest."""
    hidden, mask = source(case, options.device)
    model = cache(lambda: models.theirs(folder, options.device))

    @torch.no_grad()
    def below(reference: Tensor, written: Tensor) -> float:
        if written.shape != reference.shape:
            return float("inf")
        encoded = BaseModelOutput(last_hidden_state=hidden)
        ran = model()(attention_mask=mask, encoder_outputs=encoded, decoder_input_ids=written[:, :-1], use_cache=False)
        return models.shortfall(ran.logits, written[:, 1:])

    return below


def more(case: Case, options: Options, result: Mapping[str, Any]) -> dict[str, Any]:
    """The bytes to read for each token, and the share of the machine's bandwidth that a setting reaches."""
    spec = models.published(case)
    dtype = getattr(torch, case["dtype"])
    lengths = {"source_length": case["source"], "target_length": case["tokens"] // 2}
    costs = pairform.inspect(spec, batch=case["batch"], dtype=dtype, **lengths)
    assert spec.decoder is not None
    weights = (costs.parameters["decoder"] + spec.vocabulary * spec.decoder.width) * dtype.itemsize
    cached = costs.cache_bytes["total"]
    rate = bandwidth(options)
    limit = case["tokens"] * (weights + cached) / rate
    share = {
        name: round(limit / found["median_seconds"], 2)
        for name, found in result["settings"].items()
        if "median_seconds" in found
    }
    return {
        "weight_bytes": weights,
        "cached_bytes": cached,
        "read_bytes_a_second": rounded(rate),
        "limit_seconds": rounded(limit),
        "share_of_bandwidth": share,
    }


BENCHMARK = Benchmark(
    module="benchmarks.decode",
    cases=CASES,
    quick=QUICK,
    on_a_gpu=ON_A_GPU,
    write=write,
    settings=settings,
    name=lambda case: models.name("decode", case),
    what=lambda case: (
        f"{models.shapes(case)} shapes, {case['dtype']}: greedy decoding of {case['tokens']} tokens after a source of "
        f"{case['source']}, batch {case['batch']}, from the encoder's output on"
    ),
    difference=difference,
    more=more,
    memory=False,
    others=frozenset({INT8}),
)

if __name__ == "__main__":
    BENCHMARK.run(__doc__)
