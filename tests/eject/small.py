"""Presets with few, narrow layers and large random weights, and the modules that `eject` writes for them."""

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

import pairform

VOCABULARY = 97


def small(preset: str, changes: dict[str, Any] | None = None) -> pairform.ModelSpec:
    """The preset with 6 layers of width 32 in each stack (a whole cycle of local and global layers), and windows of 4."""
    spec = pairform.load_spec(preset)
    patch: dict[str, Any] = {"vocabulary": VOCABULARY, "initializer_range": 0.5}
    # Llama's and Qwen's special tokens lie beyond the small vocabulary
    if any(token >= VOCABULARY for _, token in spec.tokens.named()):
        patch["tokens"] = {"pad": 0, "bos": 2, "eos": 1}
    for name, stack in spec.stacks.items():
        branches: dict[str, Any] = {}
        for branch in stack.layer.present:
            block: Any = stack.layer.branches[branch]
            if hasattr(block, "heads"):
                fewer = block.kv_heads not in (None, block.heads)
                branches[branch] = {"heads": 4, "kv_heads": 2 if fewer else None, "head_dim": 16}
                if getattr(block, "mask", None) is not None and block.mask.window is not None:
                    branches[branch]["mask"] = {"window": [4, 3]}
            else:
                branches[branch] = {"hidden": 48}
        cycle = [without_sizes(patch) for patch in stack.document()["cycle"]]
        patch[name] = {"width": 32, "depth": 6, "vision": None, "layer": {"branches": branches}, "cycle": cycle}
        if "end_of_image" in stack.embedding.document():
            patch[name]["embedding"] = {"end_of_image": 7}
    return pairform.patch(pairform.patch(spec, patch), changes or {})


def without_sizes(patch: Any) -> Any:
    """A layer's patch with windows of 4."""
    if not isinstance(patch, dict):
        return patch
    return {key: [4, 3] if key == "window" and value is not None else without_sizes(value) for key, value in patch.items()}


def module_of(text: str, path: Path) -> ModuleType:
    """The written file as a module."""
    path.write_text(text)
    found = importlib.util.spec_from_file_location(path.stem, path)
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


def both(spec: pairform.ModelSpec, folder: Path, model_name: str = "model") -> tuple[pairform.Model, Any]:
    """The model with random weights, norms and biases included, and the written one, which reads them from a folder."""
    model = pairform.build(spec, seed=1, kernel="eager")
    with torch.no_grad():
        generator = torch.Generator().manual_seed(2)
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.3)
            if name.endswith("post_norm.weight"):
                parameter.add_(8.0)  # or the last token would always be the next one of a tied head
    pairform.save(model, folder / model_name)
    return model, module_of(pairform.eject(spec), folder / f"{model_name}.py").load(str(folder / model_name))
