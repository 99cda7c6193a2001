"""Spec documents with blocks and options drawn at random from the JSON Schema, so that new ones are drawn by themselves."""

import copy
import re
from collections.abc import Iterator, Mapping
from typing import Any

from hypothesis import strategies as st

import pairform
from tests.catalogue.places import IMAGE, VOCABULARY

Document = dict[str, Any]
DEFINITIONS: Mapping[str, Any] = pairform.schema()["$defs"]
LONG = ("length", "original_length")
"""Fields that bound how long a text may be: one that is longer is refused when it is read, not when the spec is."""
KERNELS = ("auto", "eager", "sdpa", "chunked")
"""Those that run on any machine."""
RARE, OFTEN = 0.2, 0.5
"""How often a field is given that could be left out: a number or choice, and what holds a block or an object."""

ROUNDS = 16
"""How many fields are left out at most to make a document valid."""
MENDED = 0.85
"""The share of documents that are made valid, where leaving out fields does so. The others are mostly refused."""
SHARING = {"share_keys": True, "keys_as_values": None, "value_norm": None}
"""The patch of a layer that attends to the keys of an earlier one, which it cannot change."""


def rarely(draw: st.DrawFn, often: float = RARE) -> bool:
    return draw(st.integers(0, 99)) >= 100 * (1 - often)  # which shrinks to no


def block(draw: st.DrawFn, kind: str, *names: str, sizes: pairform.Sizes | None = None, causal: bool = False) -> Document:
    """Any block of this kind, or one of these, with any options: mostly such as go together where `sizes` are as said."""
    for _ in range(6):
        name = draw(st.sampled_from(names or tuple(pairform.blocks(kind))))
        definition = DEFINITIONS[f"{kind}.{name}"]
        found: Document = {"name": name} | fields(draw, definition)
        if causal and "mask" in definition["properties"]:  # what a decoder writes would else not be what it reads
            found["mask"] = found.get("mask", {}) | {"causal": True}
        if sizes is None or holds(kind, found, sizes):
            break
    return found


def holds(kind: str, document: Document, sizes: pairform.Sizes) -> bool:
    """Whether the block by itself is right."""
    try:
        return not any(pairform.blocks(kind)[document["name"]].Spec.read(document).check(sizes))
    except pairform.PairformError:
        return False


def fields(draw: st.DrawFn, definition: Mapping[str, Any], often: float = RARE) -> Document:
    found: Document = {}
    for field, value in definition["properties"].items():
        required = field in definition.get("required", ())
        if field in LONG:
            found |= {field: value["examples"][0]} if required else {}
        elif field == "kernel":
            found |= {field: draw(st.sampled_from(KERNELS))} if rarely(draw) else {}
        elif field == "name":
            found |= {field: value["const"]} if "const" in value else {}
        elif required or rarely(draw, OFTEN if "$ref" in str(value) else often):
            found[field] = any_of(draw, value)
    return found


def any_of(draw: st.DrawFn, value: Mapping[str, Any]) -> Any:
    """Anything that this JSON Schema takes but null: small numbers, short lists."""
    for key in ("anyOf", "oneOf"):
        if key in value:
            return any_of(draw, draw(st.sampled_from([each for each in value[key] if each != {"type": "null"}])))
    if "$ref" in value:
        name = value["$ref"].rpartition("/")[2]
        if not name.startswith("slot."):
            return fields(draw, DEFINITIONS[name], OFTEN)
        return block(draw, draw(st.sampled_from(name.removeprefix("slot.").split("-or-"))))
    if "const" in value or "enum" in value:
        return draw(st.sampled_from(value.get("enum", [value.get("const")])))
    if value["type"] == "array":
        return [any_of(draw, each) for each in value.get("prefixItems", [value.get("items", {})] * 2)]
    if value["type"] == "boolean":
        return draw(st.booleans())
    if value["type"] == "string":
        return draw(st.sampled_from(["a", "b"]))
    numbers: list[float] = [1, 2, 4, 8, 3, 0] if value["type"] == "integer" else [1.0, 0.5, 0.0, 4.0, -1.0]
    return draw(st.sampled_from([number for number in numbers if fits(number, value)]))


def fits(number: float, value: Mapping[str, Any]) -> bool:
    above = number >= value.get("minimum", number) and number > value.get("exclusiveMinimum", number - 1)
    return above and number <= value.get("maximum", number) and number < value.get("exclusiveMaximum", number + 1)


def stack(draw: st.DrawFn, part: str, *, source: int | None) -> Document:
    """source: the width of what it reads beside its own tokens."""
    width, depth, causal = draw(st.sampled_from([8, 4, 12])), draw(st.integers(1, 2)), part == "decoder"
    sizes = pairform.Sizes(width, source, vocabulary=VOCABULARY, pad=0, depth=depth)
    branches = {
        "own": block(draw, "attention", sizes=sizes, causal=causal),
        "feed": block(draw, "feed_forward", sizes=sizes),
    }
    if source is not None and draw(st.booleans()):
        branches["other"] = block(draw, "attention", "cross_attention", sizes=sizes)
    order: list[Any] = list(draw(st.permutations(list(branches))))
    if rarely(draw):
        order = [order[:2], *order[2:]]
    layer = {"norm": block(draw, "norm"), "order": order, "branches": branches}
    layer["placement"] = draw(st.sampled_from(["pre", "post", "sandwich"]))
    if draw(st.booleans()):
        layer["residual"] = block(draw, "residual", *(["deepnorm", "add"] if layer["placement"] == "post" else []))
    if rarely(draw):
        layer["drop_path"] = fields(draw, DEFINITIONS["DropPath"])
    found = {
        "width": width,
        "depth": depth,
        "embedding": block(draw, "embedding", sizes=sizes),
        "layer": layer,
    }
    if rarely(draw, 0.3):
        found["position"] = block(draw, "absolute_position", sizes=sizes)
    if rarely(draw):
        found["final_norm"] = block(draw, "norm")
    if rarely(draw):
        layer["norms"] = {draw(st.sampled_from(list(branches))): block(draw, "norm", sizes=sizes)}
    if rarely(draw):
        found["layer_input"] = fields(draw, DEFINITIONS["LayerInputSpec"])
    if part == "encoder" and rarely(draw):
        found["token_types"] = draw(st.integers(1, 3))
    if rarely(draw):
        found["cycle"] = [{}, {"branches": {"own": block(draw, "attention", sizes=sizes, causal=causal)}}]
    if rarely(draw):
        found["overrides"] = [{"layers": [-1], "patch": {"branches": {"feed": block(draw, "feed_forward", sizes=sizes)}}}]
    elif depth > 1 and rarely(draw, 0.3):
        found["overrides"] = [{"layers": [-1], "patch": {"branches": {"own": SHARING}}}]
    return found


def vision(draw: st.DrawFn, width: int) -> Document:
    """Pictures of a side that patches fill, mostly."""
    tower = stack(draw, "encoder", source=None)
    tower["embedding"] = block(draw, "embedding", "patches", sizes=pairform.Sizes(tower["width"]))
    patches = (tower["embedding"]["image_size"] // tower["embedding"]["patch_size"]) ** 2
    projector = block(draw, "projector", sizes=pairform.Sizes(width, tower["width"], source_length=patches))
    return {"tower": tower, "projector": projector, "image_token": IMAGE, "frozen": draw(st.booleans())}


def problems(document: Document) -> list[str]:
    """The places of all that the spec refuses."""
    try:
        pairform.load_spec(document)
    except pairform.PairformError as error:
        return [problem.where for problem in error.problems]
    return []


def mended(document: Document) -> Document:
    """The document without fields that are invalid beside the others, as far as leaving them out makes it valid."""
    found = problems(document)
    for _ in range(ROUNDS):
        if not found:
            break
        for made, left_out in without(document, found[0]):
            still = problems(made)
            if found[0] not in still and left_out not in still:
                document, found = made, still
                break
        else:
            break
    return document


def without(document: Document, where: str) -> Iterator[tuple[Document, str]]:
    """The document without one of the fields that an error may mean, and that field's place: those inside first."""
    keys: list[str] = []
    holder: Any = document
    for part in re.findall(r"[^.\[\]]+", where):
        if part == "layers" and isinstance(holder, dict) and "layers" not in holder:
            for patches in ("overrides", "cycle"):
                if patches in holder:
                    yield left_out(document, [*keys, patches])
            part = "layer"
        elif keys and keys[-1] == "layer" and part.isdecimal():
            continue
        if not isinstance(holder, dict) or part not in holder:
            break
        keys.append(part)
        holder = holder[part]
    inside = [name for name in holder if name != "name"] if isinstance(holder, dict) and keys else []
    yield from (left_out(document, [*keys, name]) for name in inside)
    yield from (left_out(document, keys[:end]) for end in range(len(keys), 0, -1))


def left_out(document: Document, keys: list[str]) -> tuple[Document, str]:
    made = copy.deepcopy(document)
    holder = made
    for key in keys[:-1]:
        holder = holder[key]
    del holder[keys[-1]]
    return made, ".".join(keys)


@st.composite
def documents(draw: st.DrawFn, assembly: str | None = None) -> Document:
    """Of which the spec takes most and refuses others."""
    assembly = assembly or draw(st.sampled_from(["encoder_decoder", "decoder_only", "encoder_decoder", "encoder_only"]))
    encoder = None if assembly == "decoder_only" else stack(draw, "encoder", source=None)
    decoder = (
        None if assembly == "encoder_only" else stack(draw, "decoder", source=None if encoder is None else encoder["width"])
    )
    document: Document = {
        "assembly": assembly,
        "vocabulary": VOCABULARY,
        "tokens": {"pad": 0, "eos": 1, "bos": 2},
        **({} if encoder is None else {"encoder": encoder}),
        **({} if decoder is None else {"decoder": decoder}),
        "head": block(draw, "head", *(["lm"] if decoder is not None and not rarely(draw) else [])),
        "initializer_range": 0.3,
    }
    reader = document.get("encoder") or document["decoder"]
    if rarely(draw, 0.15):
        reader["vision"] = vision(draw, reader["width"])
    if rarely(draw, 0.1):
        reader["vocabulary"] = VOCABULARY + 4
    if encoder is not None and decoder is not None:
        if rarely(draw, 0.4):
            document["bridge"] = block(draw, "bridge")
        if rarely(draw):
            document["tie_embeddings"] = True
            encoder["embedding"] = decoder["embedding"]
    return mended(document) if rarely(draw, MENDED) else document
