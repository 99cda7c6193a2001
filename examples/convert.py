"""A complete conversion, offline and in seconds. `make demo` runs it after `checkpoints.py`.

Two small Gemma 2 checkpoints in the transformers format become an encoder-decoder whose encoder is the larger model. The
result is compared with transformers and with its sources, and generates a few tokens.
"""

import argparse
import logging
from pathlib import Path

import torch

import pairform

for name in ("torchao", "torch.utils._pytree"):  # transformers imports torchao, which warns about kernels for other machines
    logging.getLogger(name).setLevel(logging.ERROR)

from tokenizers import Tokenizer  # noqa: E402
from transformers import Gemma2ForCausalLM, T5GemmaForConditionalGeneration  # noqa: E402
from transformers.utils import logging as transformers_logging  # noqa: E402

TEXT = "the small cat follows the red bird"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, default=Path("demo"), help="working folder (default: demo)")
    folder: Path = parser.parse_args().out
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()

    large, small = folder / "gemma-large", folder / "gemma-small"
    paired = folder / "paired"
    report = pairform.convert(encoder=large, decoder=small, out=paired, overwrite=True)
    kinds = {kind: total["tensors"] for kind, total in report.plan.totals.items()}
    print(f"{paired}: an encoder of width 48 with a decoder of width 32; tensors: {kinds}")
    print(f"  verified: {pairform.verify(paired).ok}")

    silent = folder / "silent"
    pairform.convert(encoder=large, decoder=small, out=silent, overwrite=True, cross_attention="zero_output")
    exported = folder / "exported"
    pairform.export(paired, exported, format="transformers", overwrite=True)

    ids = read_tokens(paired)
    print(f"  difference from transformers:           {against_transformers(exported, ids):.1e} of the largest logit")
    print(f"  causal encoder from its source:         {encoder_to_source(paired, large, ids):.1e}")
    print(f"  zero-output decoder from its source:    {decoder_to_source(silent, small, ids):.1e}")

    model = pairform.load(paired)
    written = model.generate(ids, max_new_tokens=8)
    print(f"  reads:  {TEXT}")
    print(f"  writes: {Tokenizer.from_file(str(paired / 'tokenizer.json')).decode(written[0].tolist())}")


def read_tokens(folder: Path) -> torch.Tensor:
    """`TEXT` as token IDs, by the tokenizer of the converted folder, `[1, length]`."""
    return torch.tensor([Tokenizer.from_file(str(folder / "tokenizer.json")).encode(TEXT).ids])


@torch.no_grad()
def against_transformers(folder: Path, ids: torch.Tensor) -> float:
    """The largest difference between our logits and transformers', relative to the largest logit."""
    theirs = T5GemmaForConditionalGeneration.from_pretrained(folder).eval()
    # transformers 5 treats an encoder window of w as w tokens on each side; the weights were trained with w - 1
    theirs.config.encoder.sliding_window -= 1
    expected = theirs(input_ids=ids, attention_mask=torch.ones_like(ids), decoder_input_ids=ids).logits
    found = pairform.load(folder)(ids, decoder_input_ids=ids).logits
    assert found is not None
    return float((found - expected).abs().max() / expected.abs().max())


@torch.no_grad()
def encoder_to_source(folder: Path, source: Path, ids: torch.Tensor) -> float:
    """The largest difference between the converted encoder, made causal again, and its decoder-only source."""
    causal = {"encoder": {"layer": {"branches": {"self_attention": {"mask": {"causal": True}}}}}}
    hidden = pairform.load(folder, patch=causal)(ids, decoder_input_ids=ids).encoder_last_hidden_state
    expected = Gemma2ForCausalLM.from_pretrained(source).eval().model(input_ids=ids).last_hidden_state
    return float((hidden - expected).abs().max())


@torch.no_grad()
def decoder_to_source(folder: Path, source: Path, ids: torch.Tensor) -> float:
    """The largest difference between a decoder whose cross-attention outputs zero and its decoder-only source."""
    found = pairform.load(folder)(ids, decoder_input_ids=ids).logits
    return float((found - Gemma2ForCausalLM.from_pretrained(source).eval()(input_ids=ids).logits).abs().max())


if __name__ == "__main__":
    main()
