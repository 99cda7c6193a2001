"""The changes from Gemma 3 to T5Gemma 2 other than weights (arXiv 2512.14856, section 2, and the released configurations)."""

from typing import Any

from pairform.assemblies.families.gemma.gemma3_stack import window_pair, window_width
from pairform.assemblies.initialisation.pairing.compatibility import OWN
from pairform.assemblies.specs.layer_patches import layers_of, with_layer_patches
from pairform.assemblies.specs.model import LayerSpec, ModelSpec
from pairform.blocks.positions.rotary import RotaryPosition

ROPE_FACTOR = 8.0
"""The linear RoPE scaling of global layers; Gemma 3 has it from 4B on."""
VOCABULARY = 262144
"""The ids above are Gemma 3's placeholders for images."""
IMAGE_TOKEN = 256001
END_OF_IMAGE = 256000


def of_gemma3(model: ModelSpec, part: str) -> bool:
    """Whether a stack is like Gemma 3: all layers normalise queries and keys, but not values as Gemma 4's do, and have norms
    before and after each branch."""
    layers = [(layer.placement, layer.self_attention) for layer in model.stacks[part].layers]
    return all(placement == "sandwich" and own.qk_norm is not None and own.value_norm is None for placement, own in layers)


def adapted(stack: dict[str, Any], part: str, vocabulary: int) -> dict[str, Any]:
    """A Gemma 3 stack's document with T5Gemma 2's positions and, in the encoder, its windows. vocabulary: the new size."""
    stack = with_layer_patches(stack, [layer_patch(layer, part) for layer in layers_of(stack)])
    # unlike T5Gemma, T5Gemma 2 does not scale `inputs_embeds`
    embedding = {key: value for key, value in stack["embedding"].items() if key != "scale_given"}
    vision = stack.get("vision")
    if vision is not None and vocabulary > IMAGE_TOKEN:
        stack = stack | {"vision": vision | {"image_token": IMAGE_TOKEN}}
    return stack | {"embedding": embedding}


def end_of_image(vision: dict[str, Any] | None, vocabulary: int) -> int | None:
    """The id whose embedding becomes a parameter of its own: the source's end of image, else Gemma 3's."""
    token: int = END_OF_IMAGE if vision is None or vision.get("end_token") is None else vision["end_token"]
    return token if token < vocabulary else None


def layer_patch(layer: LayerSpec, part: str) -> dict[str, Any]:
    """The patch on one layer's self-attention."""
    position, mask = layer.self_attention.position, layer.self_attention.mask
    window = None if mask is None else mask.window
    if part == "encoder" and mask is not None and not mask.causal:
        return {}  # an encoder already, such as EmbeddingGemma: it keeps its windows and positions
    if mask is None or window is None:
        if not isinstance(position, RotaryPosition.Spec) or position.scaling.name != "default":
            return {}
        return {"branches": {OWN: {"position": {"scaling": {"name": "linear", "factor": ROPE_FACTOR}}}}}
    if part == "decoder":
        return {}
    # the same width, which counted tokens up to the query, now counts those on both sides
    return {"branches": {OWN: {"mask": {"window": window_pair(window_width(window, "past"), "both")}}}}
