"""Merged attention is one softmax over a decoder's own tokens and its source: against loops over rows, heads and queries."""

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from einops import rearrange
from torch import Tensor

import pairform
from tests.merged.pairs import NORM, VOCABULARY, wide

SOURCE, OWN = 11, 9
THETA = 100.0


@dataclass(frozen=True)
class Case:
    """What is set on a merged attention beside its heads."""

    fields: dict[str, Any] = field(default_factory=dict)
    window: tuple[int, int] | None = None
    bridge: str = "none"
    padding: str | None = None
    kernels: tuple[str, ...] = ("eager", "sdpa")

    def model(self, kernel: str) -> pairform.Model:
        """One layer of nothing but merged attention: what it adds to the embeddings is its output."""
        heads = {"heads": 4, "kv_heads": 2, "head_dim": 6, "position": {"name": "rope", "theta": THETA}, **self.fields}
        merged = {"name": "merged_attention", "mask": {"causal": True, "window": self.window}, "kernel": kernel, **heads}
        layer = {"norm": {"name": "none"}, "order": ["own"], "branches": {"own": merged}}
        width = 12 if self.bridge == "none" else 20
        encoder = {"norm": {"name": "none"}, "order": ["f"], "branches": {"f": {"name": "mlp", "hidden": 4}}}
        document = {
            "assembly": "encoder_decoder",
            "vocabulary": VOCABULARY,
            "encoder": {"width": width, "depth": 1, "embedding": {"name": "token"}, "layer": encoder},
            "decoder": {"width": 12, "depth": 1, "embedding": {"name": "token"}, "layer": layer},
            "bridge": {"name": self.bridge},
            "head": {"name": "none"},
            "initializer_range": 0.5,
        }
        return wide(document)


CASES = {
    "plain": Case(),
    "local": Case(window=(2, 2)),
    "only itself": Case(window=(0, 0)),
    "q/k norms": Case({"qk_norm": NORM}),
    "all heads": Case({"kv_heads": 4}),
    "one key head": Case({"kv_heads": 1}, window=(3, 0)),
    "scale and biases": Case({"scale": 0.9, "bias": True}),
    "softcap": Case({"softcap": 1.5, "qk_norm": NORM}, window=(3, 1), kernels=("eager", "auto")),
    "no position": Case({"position": {"name": "none"}}),
    "own source keys": Case({"qk_norm": NORM, "bias": True}, window=(2, 0), bridge="separate_keys"),
    "projected source": Case({"qk_norm": NORM, "bias": True}, window=(2, 0), bridge="linear"),
    "padded left": Case({"qk_norm": NORM}, window=(2, 0), padding="left"),
    "padded right": Case({"qk_norm": NORM}, padding="right", bridge="separate_keys"),
}


@pytest.mark.parametrize("what", CASES)
def test_it_is_one_softmax_over_both(what: str) -> None:
    case = CASES[what]
    for kernel in case.kernels:
        model = case.model(kernel)
        inputs = batch(model, case.padding)
        expected, weights = reference(model, case, **inputs)
        real = inputs["decoder_attention_mask"].bool()
        with torch.no_grad():
            ran = run(model, inputs, output_hidden_states=True)
            model.use_kernel("eager")
            seen = run(model, inputs, output_attentions=True)
        assert ran.decoder_hidden_states is not None
        added = ran.decoder_hidden_states[1] - ran.decoder_hidden_states[0]
        torch.testing.assert_close(added[real], expected[real], rtol=1e-10, atol=1e-10)
        assert seen.decoder_attentions is not None
        assert seen.cross_attentions is not None
        (own,), (source,) = seen.decoder_attentions, seen.cross_attentions
        assert own.shape == (2, 4, OWN, OWN)
        assert source.shape == (2, 4, OWN, SOURCE)
        rows = torch.cat((own, source), dim=-1).transpose(1, 2)[real]
        torch.testing.assert_close(rows, weights.transpose(1, 2)[real], rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(rows.sum(-1), torch.ones_like(rows[..., 0]))


def batch(model: pairform.Model, padding: str | None) -> dict[str, Tensor]:
    assert model.spec.encoder is not None
    mask, source_mask = torch.ones(2, OWN, dtype=torch.long), torch.ones(2, SOURCE, dtype=torch.long)
    if padding is not None:
        mask[1, slice(0, 3) if padding == "left" else slice(OWN - 3, OWN)] = 0
        source_mask[0, slice(0, 4) if padding == "left" else slice(SOURCE - 4, SOURCE)] = 0
    return {
        "decoder_input_ids": torch.randint(0, VOCABULARY, (2, OWN)),
        "decoder_attention_mask": mask,
        "encoder_outputs": torch.randn(2, SOURCE, model.spec.encoder.width, dtype=torch.float64),
        "attention_mask": source_mask,
    }


def run(model: pairform.Model, inputs: dict[str, Any], **wanted: bool) -> pairform.ModelOutput:
    output: pairform.ModelOutput = model(**inputs, **wanted)
    return output


def reference(
    model: pairform.Model,
    case: Case,
    decoder_input_ids: Tensor,
    decoder_attention_mask: Tensor,
    encoder_outputs: Tensor,
    attention_mask: Tensor,
) -> tuple[Tensor, Tensor]:
    """The output `[batch, own, width]` and the weights `[batch, heads, own, own + source]`, from the formula."""
    weights = {name.removeprefix("decoder.layers.0.own.block."): value.detach() for name, value in model.named_parameters()}
    heads, kv_heads = 4, case.fields.get("kv_heads", 2)
    hidden, source = weights["decoder.embedding.weight"][decoder_input_ids], encoder_outputs
    if case.bridge == "linear":
        source = source @ weights["bridge.weight"].T
    of_source = "source_" if case.bridge == "separate_keys" else ""
    queries = normed(weights, "q_norm", linear(weights, "q_proj", hidden, heads))
    keys = normed(weights, "k_norm", linear(weights, "k_proj", hidden, kv_heads))
    values = linear(weights, "v_proj", hidden, kv_heads)
    source_keys = normed(weights, "k_norm", linear(weights, f"{of_source}k_proj", source, kv_heads))
    source_values = linear(weights, f"{of_source}v_proj", source, kv_heads)
    attended = torch.zeros(2, OWN, heads, 6, dtype=torch.float64)
    found = torch.zeros(2, heads, OWN, OWN + SOURCE, dtype=torch.float64)
    for row in range(2):
        first = int(decoder_attention_mask[row].argmax())
        readable = [OWN + place for place in range(SOURCE) if attention_mask[row, place]]
        for head in range(heads):
            group = head * kv_heads // heads
            turned = torch.stack([rotated(case, keys[row, place, group], place - first) for place in range(OWN)])
            all_keys = torch.cat((turned, source_keys[row, :, group]))
            all_values = torch.cat((values[row, :, group], source_values[row, :, group]))
            for place in range(OWN):
                reach = place if case.window is None else case.window[0]
                near = [at for at in range(max(0, place - reach), place + 1) if decoder_attention_mask[row, at]]
                scores = all_keys[near + readable] @ rotated(case, queries[row, place, head], place - first)
                scores = scores * case.fields.get("scale", 6**-0.5)
                if cap := case.fields.get("softcap"):
                    scores = cap * (scores / cap).tanh()
                share = scores.exp() / scores.exp().sum()
                found[row, head, place, near + readable] = share
                attended[row, place, head] = share @ all_values[near + readable]
    output = attended.flatten(2) @ weights["o_proj.weight"].T
    return output + weights.get("o_proj.bias", torch.zeros(12, dtype=torch.float64)), found


def linear(weights: dict[str, Tensor], name: str, hidden: Tensor, heads: int) -> Tensor:
    """`[batch, length, heads, head_dim]`."""
    projected = hidden @ weights[f"{name}.weight"].T + weights.get(f"{name}.bias", torch.zeros((), dtype=torch.float64))
    return rearrange(projected, "b l (h d) -> b l h d", h=heads)


def normed(weights: dict[str, Tensor], name: str, heads: Tensor) -> Tensor:
    if f"{name}.weight" not in weights:
        return heads
    return heads / (heads.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt() * (1 + weights[f"{name}.weight"])


def rotated(case: Case, head: Tensor, position: int) -> Tensor:
    """Each pair of channels as a complex number, turned by its angle; angles are of float32, as in the block."""
    if case.fields.get("position") == {"name": "none"}:
        return head
    angles = position / THETA ** (torch.arange(0, 6, 2, dtype=torch.float32) / 6)
    turned = torch.complex(head[:3], head[3:]) * torch.complex(angles.cos().double(), angles.sin().double())
    return torch.cat((turned.real, turned.imag))
