"""The written forms of greedy generation and of reading weights."""

from typing import Any

from pairform.assemblies.specs.model import ModelSpec

LOAD = '''def load(path: str) -> Model:
    """The model with the weights of a safetensors file, or of a folder of them."""
    from safetensors.torch import load_file

    files = sorted(Path(path).glob("*.safetensors")) if Path(path).is_dir() else [Path(path)]
    weights: dict[str, Tensor] = {}
    for file in files:
        weights.update(load_file(file))
    model = Model()
    model.load_state_dict(weights)
    return model.eval()
'''


def masked(spec: ModelSpec, part: str) -> str:
    """The expression of the mask of `input_ids` without an attention mask."""
    padding = spec.tokens_of(part).padding
    return "torch.ones_like(input_ids, dtype=torch.bool)" if padding is None else f"input_ids != {padding}"


def generation(spec: ModelSpec, both: bool) -> list[Any]:
    """The method that generates."""
    assert spec.decoder is not None
    tokens, table = spec.tokens, "encoder" if spec.tie_embeddings else "decoder"
    ends = tokens.ends
    filler = tokens.pad if tokens.pad is not None else (ends[0] if ends else 0)
    first = tokens.first
    if both and first is None:
        return []
    signature = "self, input_ids: Tensor, attention_mask: Tensor | None = None, max_new_tokens: int = 20"
    start: list[str]
    if both:
        about = f"After the start token {first}, the tokens with the highest logits"
        start = [
            "source, source_mask = self.encode(input_ids, attention_mask)",
            f"tokens = torch.full((len(input_ids), 1), {first}, device=input_ids.device)",
            "valid = torch.ones_like(tokens, dtype=torch.bool)",
        ]
    else:
        about = "After the prompt, the tokens with the highest logits"
        start = [
            f"valid = {masked(spec, 'decoder')} if attention_mask is None else attention_mask.bool()",
            "order = valid.long().argsort(dim=1, stable=True)  # moves padding to the left",
            "tokens, valid = input_ids.gather(1, order), valid.gather(1, order)",
        ]
    given = "embedded, valid, source, source_mask, caches" if both else "embedded, valid, caches"
    ended = " | ".join(f"(token == {end})" for end in ends)
    body = [
        *start,
        f"caches: list[Cache] = [{{}} for _ in range({spec.decoder.depth})]",
        "finished = torch.zeros(len(tokens), dtype=torch.bool, device=tokens.device)" if ends else "",
        "new = tokens",
        "for _ in range(max_new_tokens):",
        f"    embedded = self.{table}.embedding(new)",
        f"    hidden = self.decoder({given})",
        "    token = self.logits(hidden[:, -1:])[:, 0].max(-1).indices",
        f"    token = token.masked_fill(finished, {filler})" if ends else "",
        "    new = token[:, None]",
        "    tokens = torch.cat((tokens, new), 1)",
        "    valid = functional.pad(valid, (0, 1), value=True)",
        f"    finished = finished | {ended}" if ends else "",
        "    if bool(finished.all()):" if ends else "",
        "        break" if ends else "",
        "return tokens" if both else "return torch.cat((input_ids, tokens[:, input_ids.shape[1] :]), 1)",
    ]
    written = f"until {' or '.join(map(str, ends))}, with {filler} after it" if ends else "until max_new_tokens"
    return [
        "",
        "    @torch.no_grad()",
        f"    def generate({signature}) -> Tensor:",
        f'        """{about}, {written}: [B, tokens]."""',
        [f"        {line}" for line in body if line],
        "",
    ]
