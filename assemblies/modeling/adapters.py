"""Embeddings inside the adapters of PEFT, which replace a module by one that holds it."""

from typing import Any

from torch import Tensor, nn


def embedding_inside(embedding: nn.Module) -> nn.Module:
    """The embedding that an adapter holds, or the one that it trains instead; `embedding` itself without an adapter."""
    while not hasattr(embedding, "finished"):
        held = getattr(embedding, "base_layer", None) or getattr(embedding, "original_module", None)
        if held is None:
            break  # a block registered elsewhere, which does all in `forward`
        embedding = held
    return embedding


def table_of(embedding: Any) -> Tensor:
    """The table that `embedding` looks rows up in, with what its adapters add to it, for a head that shares it."""
    table: Tensor = embedding.weight
    deltas = getattr(embedding, "lora_embedding_A", None)
    if deltas is not None and not embedding.merged and not embedding.disable_adapters:
        for name in embedding.active_adapters:
            if name in deltas:
                table = table + embedding.get_delta_weight(name)
    return table
