"""Compiled layers in trials."""

from contextlib import AbstractContextManager

import torch

from pairform.assemblies.modeling.model import Model


def compile_layers(model: Model) -> None:
    """Compile each layer at its first step, for the lengths that all batches are padded to.

    Layers of one kind share code, and processes share it through the cache that torch keeps for the user. Code for any lengths
    would take twice as long to make, and depend on the lengths of the first batch, which in a resumed trial is another one.
    """
    import torch._inductor.config as settings

    settings.compile_threads = 1  # a trial is one process: it starts none that would outlive it
    model.compile_layers(dynamic=None)


def uncompiled() -> AbstractContextManager[None]:
    """In this block layers run uncompiled. Validation, in another mode and at other sizes, would need code of its own."""
    found: AbstractContextManager[None] = torch.compiler.set_stance("force_eager")
    return found
