"""The written form of a model: its stacks, bridge and head, its forward pass, greedy generation, and how weights are read."""

from typing import Any

from pairform.assemblies.eject.generation import LOAD, generation, masked
from pairform.assemblies.eject.masks import full_mask
from pairform.assemblies.eject.source import Source, lines
from pairform.assemblies.eject.stacks import stack
from pairform.assemblies.specs.model import ModelSpec
from pairform.registry import SpecError

HEADER = '''"""{summary}

Written by pairform for one architecture, without dropout. Weights have the names of pairform's folders: `load(folder)`.
In shapes, B is the batch size, T the number of new tokens, L that of cached and new ones, S that of the source.
"""
'''


def write(spec: ModelSpec) -> str:
    """The text of the file.

    Raises:
        SpecError: blocks and values of the spec that have no written form.
    """
    source = Source()
    source.only(
        spec,
        "",
        "schema_",
        "schema_version",
        "assembly",
        "vocabulary",
        "tokens",
        "encoder",
        "decoder",
        "bridge",
        "tie_embeddings",
        "head",
        "initializer_range",
    )
    source.only(spec.tokens, "tokens", "pad", "bos", "eos", "start", "wrap")
    for part, each in spec.stacks.items():
        stack(source, each, spec.sizes(part), part, embeds=part == "encoder" or not spec.tie_embeddings)
    made = model(source, spec)
    if source.problems:
        raise SpecError(source.problems)
    sizes = ", ".join(f"{part} of {each.depth} layers, width {each.width}" for part, each in spec.stacks.items())
    summary = f"{spec.assembly.replace('_', '-').capitalize()}: {sizes}, vocabulary {spec.vocabulary}."
    blocks = [*source.definitions(), made, LOAD]
    body = "\n\n".join(blocks)
    standard = ["import math"] if "math." in body else []
    aliases = []
    if "Rotation" in body:
        aliases.append("Rotation = tuple[Tensor, Tensor]  # cosines and sines, both [B, 1, T, D]")
    if "Cache" in body:
        aliases.append(
            "Cache = dict[str, tuple[Tensor, Tensor]]  # of one layer: keys and values [B, kv_heads, L or S, D] by branch"
        )
    imports = [
        *standard,
        "from pathlib import Path",
        "from typing import Any",
        "",
        "import torch",
        "from torch import Tensor, nn",
    ]
    imports += ["from torch.nn import functional"] if "functional." in body else []
    return lines(HEADER.format(summary=summary), imports, ["", *aliases] if aliases else [], "", "", body.rstrip()) + "\n"


def model(source: Source, spec: ModelSpec) -> str:
    """The class of the model."""
    both = len(spec.stacks) == 2
    last = "decoder" if spec.decoder is not None else "encoder"
    generates = spec.decoder is not None and spec.head.name == "lm"
    made = [f"self.{part} = {part.capitalize()}()" for part in spec.stacks]
    if spec.bridge.name == "linear":
        source.only(spec.bridge, "bridge", "std", "bias")
        bias: Any = spec.bridge.model_dump().get("bias")
        assert spec.encoder is not None
        made.append(f"self.bridge = nn.Linear({spec.encoder.width}, {spec.last.width}, bias={bias})")
    elif spec.bridge.name not in ("none", "separate_keys"):
        source.refuse("bridge", spec.bridge.name, "one of none, linear, separate_keys")
    logits = head(source, spec, made)
    result = "the same: there is no head" if spec.head.name == "none" else "[B, T, vocabulary]"
    written = [
        "class Model(nn.Module):",
        "    def __init__(self) -> None:",
        "        super().__init__()",
        [f"        {line}" for line in made],
        "",
        "    def logits(self, hidden: Tensor) -> Tensor:",
        f'        """[B, T, {spec.last.width}] to {result}."""',
        [f"        {line}" for line in logits],
        "",
    ]
    written += pair(source, spec) if both else single(spec, last)
    if generates:
        written += generation(spec, both)
    return lines(*written)


def head(source: Source, spec: ModelSpec, made: list[str]) -> list[str]:
    """The lines that compute the logits of `hidden`."""
    head: Any = spec.head
    if head.name == "none":
        return ["return hidden"]
    if head.name != "lm":
        source.refuse("head", head.name, "one of lm, none")
        return []
    source.only(head, "head", "tie", "scale", "softcap", "bias")
    size = spec.vocabulary_of(list(spec.stacks)[-1])
    body = []
    factor = spec.last.width**-0.5 if head.scale == "inverse_sqrt_width" else head.scale
    read = "hidden" if factor is None else f"hidden * {factor!r}"
    if head.tie is None:
        made.append(f"self.head = nn.Linear({spec.last.width}, {size}, bias={head.bias is not None})")
        body.append(f"logits: Tensor = self.head({read})")
    else:
        more = ""
        if head.bias is not None:
            made.append(f'self.head = nn.ParameterDict({{"bias": torch.zeros({size})}})')
            more = ', self.head["bias"]'
        table = f"self.{head.tie}.embedding.weight"
        body.append(f"logits: Tensor = functional.linear({read}, {table}{more})")
    body.append("return logits" if head.softcap is None else f"return torch.tanh(logits / {head.softcap!r}) * {head.softcap!r}")
    return body


def pair(source: Source, spec: ModelSpec) -> list[Any]:
    """The methods of an encoder-decoder."""
    table = "encoder" if spec.tie_embeddings else "decoder"
    assert spec.decoder is not None
    assert spec.encoder is not None
    hidden = f"encoded = self.encoder(self.encoder.embedding(input_ids), valid)  # [B, S, {spec.encoder.width}]"
    encoded = "self.bridge(encoded)" if spec.bridge.name == "linear" else "encoded"
    return [
        "    def encode(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> tuple[Tensor, Tensor]:",
        '        """The source of the decoder and its mask, 1 at tokens and 0 at padding."""',
        f"        valid = {masked(spec, 'encoder')} if attention_mask is None else attention_mask.bool()",
        f"        {hidden}",
        f"        return {encoded}, {full_mask(source, 'valid')}",
        "",
        "    def forward(",
        "        self,",
        "        input_ids: Tensor,",
        "        attention_mask: Tensor | None,",
        "        decoder_input_ids: Tensor,",
        "        decoder_attention_mask: Tensor | None = None,",
        "    ) -> Tensor:",
        '        """The logits [B, T, vocabulary] of each next token. Masks are 1 at tokens and 0 at padding."""',
        "        source, source_mask = self.encode(input_ids, attention_mask)",
        "        mask = torch.ones_like(decoder_input_ids) if decoder_attention_mask is None else decoder_attention_mask",
        f"        caches: list[Cache] = [{{}} for _ in range({spec.decoder.depth})]",
        f"        embedded = self.{table}.embedding(decoder_input_ids)",
        "        return self.logits(self.decoder(embedded, mask.bool(), source, source_mask, caches))",
    ]


def single(spec: ModelSpec, part: str) -> list[Any]:
    """The forward pass of a model of one stack."""
    decoder = part == "decoder"
    each = " of each next token" if decoder else ""
    valid = "torch.ones_like(input_ids, dtype=torch.bool)" if decoder else masked(spec, part)
    return [
        "    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:",
        f'        """The logits [B, T, vocabulary]{each}. The mask is 1 at tokens and 0 at padding."""',
        f"        valid = {valid} if attention_mask is None else attention_mask.bool()",
        [f"        caches: list[Cache] = [{{}} for _ in range({spec.stacks[part].depth})]"] if decoder else [],
        f"        embedded = self.{part}.embedding(input_ids)  # [B, T, {spec.last.width}]",
        f"        return self.logits(self.{part}(embedded, valid{', caches' if decoder else ''}))",
    ]
