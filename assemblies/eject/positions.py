"""Written forms of positions: rotations of queries and keys, and T5's bias of scores."""

from math import ceil, floor, log, pi
from typing import Any

from pairform.assemblies.eject.source import Source

ROTATION = '''def NAME(positions: Tensor, frequencies: Tensor) -> Rotation:
    """Cosines and signed sines of the angles of positions [B, T], both [B, 1, T, D]: channels i and i + D / 2 are a pair."""
    angles = positions[:, None, :, None].float() * frequencies
    cos, sin = angles.cos(), angles.sin()
    return torch.cat((cos, cos), -1), torch.cat((-sin, sin), -1)
'''
ROTATE = '''def NAME(heads: Tensor, rotation: Rotation) -> Tensor:
    """Rotate each pair of channels of [B, heads, T, D] by its angle."""
    cos, sin = rotation
    return heads * cos + heads.roll(HALF, -1) * sin
'''
ROTATE_PART = '''def NAME(heads: Tensor, rotation: Rotation) -> Tensor:
    """Rotate each pair of the first CHANNELS channels of [B, heads, T, D] by its angle."""
    cos, sin = rotation
    part = heads[..., :CHANNELS]
    return torch.cat((part * cos + part.roll(HALF, -1) * sin, heads[..., CHANNELS:]), -1)
'''
FREQUENCIES = '''def NAME(theta: float, channels: int, device: torch.device) -> Tensor:
    """Radians per token for each pair of channels."""
    even = torch.arange(0, channels, 2, dtype=torch.float32, device=device)
    return 1.0 / (theta ** (even / channels))
'''
LLAMA3 = '''def NAME(theta: float, channels: int, device: torch.device) -> Tensor:
    """Frequencies of which the low ones are divided, with a smooth transition."""
    plain = frequencies(theta, channels, device)
    unscaled = ((plain * (LENGTH / (2 * math.pi)) - LOW) / (HIGH - LOW)).clamp(0, 1)
    return plain / FACTOR * (1 - unscaled) + plain * unscaled
'''
YARN = '''def NAME(theta: float, channels: int, device: torch.device) -> Tensor:
    """Frequencies of which the low ones are divided, with a linear ramp between pairs."""
    plain = frequencies(theta, channels, device)
    pairs = torch.arange(channels // 2, dtype=torch.float32, device=device)
    scaled = ((pairs - BEGIN) / SPAN).clamp(0, 1)
    return plain / FACTOR * scaled + plain * (1 - scaled)
'''
BIAS = '''def NAME(table: Tensor, queries: int, keys: int) -> Tensor:
    """T5's bias, a row of the table [BUCKETS, heads] for each distance from the last queries to all keys: [1, heads, T, L]."""
    distances = torch.arange(1 - keys, queries, device=table.device)
    biases = functional.embedding(bucket(distances), table)  # [T + L - 1, heads]
    places = torch.arange(keys, device=table.device) - torch.arange(queries, device=table.device)[:, None] + queries - 1
    return biases[places].permute(2, 0, 1)[None]
'''
BIASED = '''def NAME(mask: Tensor, bias: Tensor) -> Tensor:
    """The bias where a query may attend, else the mask's lowest number."""
    return torch.where(mask == 0, bias, mask)
'''
BUCKET = '''def NAME(distances: Tensor) -> Tensor:
    """The bucket of each distance: SINGLE for one distance each, the others grow logarithmically up to MOST."""
FIRST
    growth = torch.log(distances.clamp(min=1).float() / SINGLE) / math.log(MOST / SINGLE)
    far = (SINGLE + (growth * REST).long()).clamp(max=LAST)
    return RESULTtorch.where(distances < SINGLE, distances, far)
'''


def is_rotated(spec: Any) -> bool:
    return spec.position.name == "rope"


def rotated(source: Source, spec: Any, head_dim: int) -> str:
    """The name of the function that rotates heads."""
    source.define("rotation", ROTATION)
    channels = int(head_dim * spec.position.fraction)
    if channels == head_dim:
        return source.define("rotate", ROTATE.replace("HALF", str(channels // 2)))
    text = ROTATE_PART.replace("HALF", str(channels // 2)).replace("CHANNELS", str(channels))
    return source.define("rotate", text)


def rotation(source: Source, spec: Any, head_dim: int, where: str) -> str:
    """The expression of the rotation of `positions`."""
    position, scaling = spec.position, spec.position.scaling
    channels = int(head_dim * position.fraction)
    source.define("rotation", ROTATION)
    plain = source.define("frequencies", FREQUENCIES)
    arguments = f"({position.theta!r}, {channels}, positions.device)"
    if scaling.name == "default":
        made = f"{plain}{arguments}"
    elif scaling.name == "linear":
        made = f"{plain}{arguments} / {scaling.factor!r}"
    elif scaling.name == "llama3":
        text = LLAMA3.replace("LENGTH", repr(scaling.original_length)).replace("LOW", repr(scaling.low_frequency))
        text = text.replace("HIGH", repr(scaling.high_frequency)).replace("FACTOR", repr(scaling.factor))
        made = f"{source.define('llama3_frequencies', text)}{arguments}"
    elif scaling.name == "yarn" and scaling.attention_factor == 1.0:
        begin, end = (
            channels * log(scaling.original_length / (2 * pi * rotations)) / (2 * log(position.theta))
            for rotations in (scaling.beta_fast, scaling.beta_slow)
        )
        if scaling.truncate:
            begin, end = floor(begin), ceil(end)
        begin, end = max(begin, 0), min(end, channels - 1)
        text = YARN.replace("BEGIN", repr(begin)).replace("SPAN", repr(end - begin if end != begin else 0.001))
        made = f"{source.define('yarn_frequencies', text.replace('FACTOR', repr(scaling.factor)))}{arguments}"
    else:
        source.refuse(f"{where}.position.scaling", scaling.name, "one of default, linear, llama3, yarn with attention 1")
        made = plain
    return f"rotation(positions, {made})"


def bias(source: Source, position: Any) -> str:
    """The name of the function that makes T5's bias of a table."""
    count = position.buckets
    if position.bidirectional:
        count //= 2
        first = f"    later = (distances > 0).long() * {count}\n    distances = distances.abs()"
        result = "later + "
    else:
        first, result = "    distances = (-distances).clamp(min=0)", ""
    single = count // 2
    text = BUCKET.replace("FIRST", first).replace("SINGLE", str(single)).replace("MOST", str(position.max_distance))
    text = text.replace("REST", str(count - single)).replace("LAST", str(count - 1)).replace("RESULT", result)
    name = source.define("bucket", text, "two_sided_" if position.bidirectional else "one_sided_")
    return source.define(
        "score_bias",
        BIAS.replace("BUCKETS", str(position.buckets)).replace("bucket(", f"{name}("),
        "two_sided_" if position.bidirectional else "one_sided_",
    )
