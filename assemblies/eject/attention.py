"""Written forms of attention: self-attention, cross-attention, and both merged under one softmax."""

from typing import Any

from pairform.assemblies.eject.norms import norm
from pairform.assemblies.eject.positions import is_rotated, rotated
from pairform.assemblies.eject.source import Source, call, lines
from pairform.registry import Sizes

WRITTEN = (
    "heads",
    "kv_heads",
    "head_dim",
    "scale",
    "softcap",
    "qk_norm",
    "qk_norm_span",
    "value_norm",
    "keys_as_values",
    "bias",
)
SPLIT = '''def NAME(projected: Tensor, heads: int) -> Tensor:
    """[B, T, heads * D] as [B, heads, T, D]."""
    batch, length, channels = projected.shape
    return projected.view(batch, length, heads, channels // heads).transpose(1, 2)
'''
ATTEND = '''def NAME(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor, scale: floatCAP_ARGUMENT) -> Tensor:
    """Attention of [B, heads, T, D] to [B, kv_heads, L, D]. The mask, to add to scores, is [B or 1, heads or 1, T or 1, L]."""
    batch, heads, length, _ = queries.shape
    kv_heads, count = keys.shape[1:3]
    # the queries of heads that share a key head are rows of one product: [B, kv_heads, heads / kv_heads * T, D]
    rows = queries.reshape(batch, kv_heads, heads // kv_heads * length, -1)
    scores = (rows @ keys.transpose(-1, -2)).view(batch, heads, length, count) * scale
CAPPED    weights = (scores + mask).softmax(-1, dtype=torch.float32).to(values.dtype)
    mixed = weights.view(batch, kv_heads, -1, count) @ values
    return mixed.view(batch, heads, length, -1)  # [B, heads, T, D]
'''
ATTEND_BOTH = '''def NAME(
    queries: Tensor,
    own: tuple[Tensor, Tensor],
    source: tuple[Tensor, Tensor],
    mask: Tensor,
    source_mask: Tensor,
    scale: float,CAP_ARGUMENT
) -> Tensor:
    """One softmax over the keys of the own sequence, [B, kv_heads, L, D], and of the source, [B, kv_heads, S, D]."""
    batch, heads, length, _ = queries.shape
    kv_heads, count = own[0].shape[1:3]
    # the queries of heads that share a key head are rows of one product: [B, kv_heads, heads / kv_heads * T, D]
    rows = queries.reshape(batch, kv_heads, heads // kv_heads * length, -1)
    scores = torch.cat([rows @ keys.transpose(-1, -2) for keys, _ in (own, source)], -1)  # [B, kv_heads, ..., L + S]
    scores = scores.view(batch, heads, length, -1) * scale
CAPPED    parts = mask.expand(batch, -1, length, -1), source_mask.expand(batch, mask.shape[1], length, -1)
    weights = (scores + torch.cat(parts, -1)).softmax(-1, dtype=torch.float32).to(own[1].dtype)
    weights = weights.view(batch, kv_heads, -1, weights.shape[-1])
    if length > 1:
        mixed = weights @ torch.cat((own[1], source[1]), 2)
    else:  # one query: two products instead of a copy of all values
        mixed = weights[..., :count] @ own[1] + weights[..., count:] @ source[1]
    return mixed.view(batch, heads, length, -1)  # [B, heads, T, D]
'''
EXTEND = '''def NAME(cache: Cache, name: str, keys: Tensor, values: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Append new keys and values to those in the cache; returns the newest `count`, those that the mask covers."""
    if name in cache:
        keys, values = torch.cat((cache[name][0], keys), 2), torch.cat((cache[name][1], values), 2)
    cache[name] = keys, values
    return keys[:, :, -count:], values[:, :, -count:]
'''


def attention(source: Source, spec: Any, sizes: Sizes, where: str, owner: str, branch: str) -> str:
    """The expression that makes an attention block of the branch of this name."""
    own = spec.name != "cross_attention"
    merged = spec.name == "merged_attention"
    source.only(spec, where, *WRITTEN, *(("position", "mask") if own else ()))
    heads, kv_heads = spec.heads, spec.kv_heads or spec.heads
    head_dim = spec.head_dim or sizes.width // heads
    scale = spec.scale or head_dim**-0.5
    separate = merged and sizes.source_keys == "separate"
    key_width = sizes.width if own else sizes.source_width or 0
    cached = own and owner == "Decoder"
    split = source.define("split", SPLIT)
    biased = bool(spec.bias)

    made = [linear("q_proj", sizes.width, heads * head_dim, biased), linear("k_proj", key_width, kv_heads * head_dim, biased)]
    if not spec.keys_as_values:
        made.append(linear("v_proj", key_width, kv_heads * head_dim, biased))
    made.append(linear("o_proj", heads * head_dim, sizes.width, spec.bias is True))
    wide = spec.qk_norm_span == "width"
    if spec.qk_norm is not None:
        for name, count in (("q_norm", heads), ("k_norm", kv_heads)):
            made.append(f"self.{name} = {norm(source, spec.qk_norm, head_dim * (count if wide else 1), f'{where}.qk_norm')}")
    if spec.value_norm is not None:
        made.append(f"self.v_norm = {norm(source, spec.value_norm, head_dim, f'{where}.value_norm')}")
    if separate:
        made.append(linear("source_k_proj", sizes.source_width or 0, kv_heads * head_dim, biased))
        if not spec.keys_as_values:
            made.append(linear("source_v_proj", sizes.source_width or 0, kv_heads * head_dim, biased))

    normed = None if spec.qk_norm is None else spec.qk_norm_span

    def projected(result: str, layer: str, read: str, count: int, norm_name: str) -> list[str]:
        """The lines that project queries or keys."""
        inner = f"self.{layer}({read})"
        if normed == "width":
            inner = f"self.{norm_name}({inner})"
        written = [f"{result} = {split}({inner}, {count})  # [B, {count}, {'S' if read == 'source' else 'T'}, {head_dim}]"]
        return [*written, f"{result} = self.{norm_name}({result})"] if normed == "head" else written

    def keys_values(read: str, prefix: str = "", keys: str = "keys", values: str = "values") -> list[str]:
        """The lines that project keys and values."""
        if spec.keys_as_values:  # before the norm of the keys
            first = [f"{values} = {split}(self.{prefix}k_proj({read}), {kv_heads})"]
        else:
            first = [f"{values} = {split}(self.{prefix}v_proj({read}), {kv_heads})"]
        if spec.value_norm is not None:
            first.append(f"{values} = self.v_norm({values})")
        return projected(keys, f"{prefix}k_proj", read, kv_heads, "k_norm") + first

    cap = "" if spec.softcap is None else f", {spec.softcap!r}"
    attend = ATTEND_BOTH if merged else ATTEND
    if spec.softcap is None:
        text = attend.replace("CAP_ARGUMENT", "").replace("CAPPED", "")
    else:
        argument = "\n    softcap: float," if merged else ", softcap: float"
        text = attend.replace("CAP_ARGUMENT", argument)
        text = text.replace("CAPPED", "    scores = torch.tanh(scores / softcap) * softcap\n")
    attend = source.define(("attend_both" if merged else "attend") + ("" if spec.softcap is None else "_softcapped"), text)

    body = projected("queries", "q_proj", "hidden", heads, "q_norm")
    arguments = ["hidden: Tensor"]
    if own:
        body += keys_values("hidden")
        arguments.append("mask: Tensor")
        if is_rotated(spec):
            arguments.append("rotation: Rotation")
            rotate = rotated(source, spec, head_dim)
            body.append(f"queries, keys = {rotate}(queries, rotation), {rotate}(keys, rotation)")
    if merged:
        arguments += ["source: Tensor", "source_mask: Tensor"]
    if cached:
        extend = source.define("extend", EXTEND)
        body.append(f'keys, values = {extend}(cache, "{branch}", keys, values, mask.shape[-1])')
    if not own:
        arguments += ["source: Tensor", "source_mask: Tensor"]
    if not own or merged:
        place = f"{branch}, source" if merged else branch
        prefix = "source_" if separate else ""
        names = ("source_keys", "source_values") if merged else ("keys", "values")
        body += [
            f'if "{place}" not in cache:  # the source is projected once',
            *(f"    {line}" for line in keys_values("source", prefix, *names)),
            f'    cache["{place}"] = {names[0]}, {names[1]}',
        ]
        if merged:
            both = f'(keys, values), cache["{place}"], mask, source_mask'
        else:
            body.append(f'keys, values = cache["{place}"]')
            both = "keys, values, source_mask"
    else:
        both = "keys, values, mask"
    if owner == "Decoder":
        arguments.append("cache: Cache")
    body.append(f"mixed = {attend}(queries, {both}, {scale!r}{cap})")
    text = lines(
        "class NAME(nn.Module):",
        f'    """{describe(heads, kv_heads, head_dim)}"""',
        "",
        "    def __init__(self) -> None:",
        "        super().__init__()",
        [f"        {line}" for line in made],
        "",
        "    " + call("def forward(", ["self", *arguments], ") -> Tensor:", indent=4),
        [f"        {line}" for line in body],
        f"        output: Tensor = self.o_proj(mixed.transpose(1, 2).flatten(2))  # [B, T, {sizes.width}]",
        "        return output",
        "",
    )
    title = {"self_attention": "SelfAttention", "cross_attention": "CrossAttention", "merged_attention": "MergedAttention"}
    return f"{source.define(title[spec.name], text, owner)}()"


def linear(name: str, inputs: int, outputs: int, bias: bool) -> str:
    return f"self.{name} = nn.Linear({inputs}, {outputs}, bias={bias})"


def describe(heads: int, kv_heads: int, head_dim: int) -> str:
    if heads == kv_heads:
        return f"{heads} heads of {head_dim} channels."
    return f"{heads} query heads and {kv_heads} key-value heads of {head_dim} channels."
