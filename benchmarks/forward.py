"""One forward pass of encoder and decoder against transformers with its default settings: the same folder, in turn.

The model has the shapes of T5Gemma B-B with a vocabulary of 32000 and windows of 256 tokens, and random weights.

    python -m benchmarks.forward [--source 2048] [--target 128] [--batch 2] [--dtype bfloat16] [--threads 2] [--runs 5]
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import transformers

import pairform
from benchmarks.measure import save

WINDOWS = {"cycle": [{"branches": {"self_attention": {"mask": {"window": [255, 255]}}}}, {}]}
PATCH = {"vocabulary": 32000, "encoder": WINDOWS, "decoder": WINDOWS}
INCLUSIVE = {"encoder": {"cycle": [{"branches": {"self_attention": {"mask": {"window": [256, 256]}}}}, {}]}}
"""transformers' encoder windows reach one token further than the weights were trained with; here ours do too."""


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in {"source": 2048, "target": 128, "batch": 2, "threads": 2, "runs": 5}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--dtype", choices=["bfloat16", "float32"], default="bfloat16")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    transformers.utils.logging.set_verbosity_error()
    with tempfile.TemporaryDirectory() as name:
        spec = pairform.patch(pairform.load_spec("t5gemma-b-b"), PATCH)
        model = pairform.build(spec, dtype=getattr(torch, arguments.dtype), seed=0)
        pairform.save(model, Path(name) / "model", format="transformers")
        ours: Any = pairform.load(Path(name) / "model", patch=INCLUSIVE)
        theirs: Any = transformers.T5GemmaForConditionalGeneration.from_pretrained(Path(name) / "model").eval()
    read, written = (torch.randint(3, 32000, (arguments.batch, length)) for length in (arguments.source, arguments.target))
    inputs = {"input_ids": read, "attention_mask": torch.ones_like(read), "decoder_input_ids": written}
    seconds: dict[str, list[float]] = {"pairform": [], "transformers": []}
    answers: dict[str, Any] = {}
    for turn in range(arguments.runs + 1):
        for name, other in (("pairform", ours), ("transformers", theirs)):
            begin = time.perf_counter()
            answers[name] = other(**inputs).logits
            taken = time.perf_counter() - begin
            if turn:
                seconds[name].append(round(taken, 3))
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    largest = answers["transformers"].float().abs().max()
    case = f"source {arguments.source}, target {arguments.target}, batch {arguments.batch}, {arguments.dtype}"
    save(
        f"forward-{arguments.source}-{arguments.batch}-{arguments.dtype}",
        {
            "what": f"T5Gemma B-B shapes, {case}: forward, against transformers' default (eager, since it has a softcap)",
            "transformers_version": transformers.__version__,
            "threads": arguments.threads,
            "seconds": seconds,
            "medians": medians,
            "speedup": round(medians["transformers"] / medians["pairform"], 2),
            "largest_difference": float((answers["pairform"] - answers["transformers"]).float().abs().max() / largest),
        },
    )


if __name__ == "__main__":
    main()
