"""Greedy decoding with the encoder included, compared with CTranslate2 (float32 and int8) and transformers.

The model has T5Gemma B-B's shapes without softcaps and windows, which CTranslate2 does not compute. `pairform.export` converts
it, so that all peers have the same weights. The first tokens of each are checked against transformers' logits as in
`benchmarks.decode`. int8 computes something else: it is timed, and its tokens are not compared. Every setting runs in processes
of its own, in turn: CTranslate2 and torch each bring an OpenMP runtime, and in one process they slow each other down by half.

    python -m benchmarks.ctranslate2 [--only CASE ...] [--runs N] [--threads 2] [--quick]
"""

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from tokenizers import models as kinds
from torch import Tensor
from transformers import PreTrainedTokenizerFast

import pairform
from benchmarks import models
from benchmarks.cases import Benchmark, Case
from benchmarks.compare import Difference, Make
from benchmarks.options import Options
from pairform.assemblies.specs.model import ModelSpec

SHAPE: Case = {"tokens": 48, "dtype": "float32", "runs": 3, "apart": True}
CASES: list[Case] = [SHAPE | {"source": source, "batch": batch} for source in (300, 2048) for batch in (1, 8)]
QUICK: list[Case] = [{"source": 12, "tokens": 6, "batch": 2, "dtype": "float32"}]
SPECIAL = {"pad_token": "<pad>", "eos_token": "<eos>", "bos_token": "<bos>", "unk_token": "<unk>"}
WORDS = (*SPECIAL.values(), *(f"w{number}" for number in range(len(SPECIAL), models.VOCABULARY)))
INT8 = "ctranslate2-int8"
PLAIN = {"mask": {"window": None}, "softcap": None, "scale": None}


def spec(*, quick: bool) -> ModelSpec:
    stack = {"cycle": [{}], "layer": {"branches": {"self_attention": PLAIN}}}
    decoder = {
        "cycle": [{}],
        "layer": {"branches": {"self_attention": PLAIN, "cross_attention": {"softcap": None, "scale": None}}},
    }
    patch = {"encoder": stack, "decoder": decoder, "head": {"softcap": None}}
    return pairform.patch(models.t5gemma(models.VOCABULARY, quick=quick), patch)


def write(folder: Path, case: Case, options: Options) -> None:
    models.write(spec(quick=case["source"] < 128), folder, case["dtype"])
    vocabulary = {word: number for number, word in enumerate(WORDS)}
    made = Tokenizer(kinds.WordLevel(vocabulary, SPECIAL["unk_token"]))
    PreTrainedTokenizerFast(tokenizer_object=made, **SPECIAL).save_pretrained(folder)
    pairform.export(folder, folder.parent / "ctranslate2", format="ctranslate2")
    pairform.export(folder, folder.parent / INT8, format="ctranslate2", quantization="int8")


def settings(folder: Path, case: Case, options: Options) -> Mapping[str, Make]:
    read = models.tokens(case["batch"], case["source"], "cpu", 0)
    new = case["tokens"]

    def generates(load: Callable[[], Any], **given: Any) -> Make:
        def make() -> Callable[[], Tensor]:
            model = load()
            return lambda: model.generate(read, attention_mask=torch.ones_like(read), max_new_tokens=new, **given)

        return make

    def theirs() -> Any:
        return models.endless(models.theirs(folder, "cpu"))

    def translates(name: str) -> Make:
        def make() -> Callable[[], Tensor]:
            import ctranslate2

            opened = ctranslate2.Translator(str(folder.parent / name), inter_threads=1, intra_threads=options.threads)
            texts = [[WORDS[token] for token in row] for row in read.tolist()]
            # no random text ends: the end token is another one, and excluded before the largest length
            given = {"beam_size": 1, "max_decoding_length": new, "min_decoding_length": new, "max_input_length": 0}
            numbers = {word: number for number, word in enumerate(WORDS)}

            def call() -> Tensor:
                found = opened.translate_batch(texts, end_token=SPECIAL["unk_token"], **given)
                start = numbers[SPECIAL["bos_token"]]
                return torch.tensor([[start, *(numbers[word] for word in result.hypotheses[0])] for result in found])

            return call

        return make

    ours = cache(lambda: models.ours(folder, "cpu", patch=None))
    endless: dict[str, Any] = {"eos_token_id": ()}
    table: dict[str, Make] = {
        "pairform": generates(ours, **endless),
        "pairform compiled": generates(ours, compile=True, **endless),
        "pairform int8 compiled": generates(
            lambda: pairform.load(folder, dtype=torch.float32, quantise="int8_dynamic").eval(), compile=True, **endless
        ),
        "transformers": generates(theirs, do_sample=False),
        "ctranslate2": translates("ctranslate2"),
        "ctranslate2 int8": translates(INT8),
    }
    return {name: make for name, make in table.items() if not (options.quick and "compiled" in name)}


def difference(folder: Path, case: Case, options: Options) -> Difference:
    """How far the logit of a generated token is below the largest logit, relative to the largest."""
    read = models.tokens(case["batch"], case["source"], "cpu", 0)
    model = cache(lambda: models.theirs(folder, "cpu"))

    @torch.no_grad()
    def below(reference: Tensor, written: Tensor) -> float:
        if written.shape != reference.shape:
            return float("inf")
        ran = model()(read, attention_mask=torch.ones_like(read), decoder_input_ids=written[:, :-1], use_cache=False)
        return models.shortfall(ran.logits, written[:, 1:])

    return below


BENCHMARK = Benchmark(
    module="benchmarks.ctranslate2",
    cases=CASES,
    quick=QUICK,
    write=write,
    settings=settings,
    name=lambda case: f"translate-{case['source']}-{case['batch']}-{case['dtype']}",
    what=lambda case: (
        f"T5Gemma B-B shapes without softcaps and windows, {case['dtype']}: encoder and greedy decoding of {case['tokens']} "
        f"tokens, source {case['source']}, batch {case['batch']}"
    ),
    difference=difference,
    memory=False,
    others=frozenset({"pairform int8 compiled", "ctranslate2 int8"}),
)

if __name__ == "__main__":
    BENCHMARK.run(__doc__)
