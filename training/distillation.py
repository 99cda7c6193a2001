"""Distillation: a model learns the predictions of a teacher besides the labels."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from pairform.assemblies.checkpoints.save import load
from pairform.assemblies.modeling.model import Model
from pairform.assemblies.modeling.sharding import Precision
from pairform.blocks.heads.loss_terms import LossTerms, Teacher
from pairform.blocks.heads.prediction import Prediction
from pairform.blocks.heads.token_heads import LMHead
from pairform.registry import PositiveFloat, Spec
from pairform.training.data.stream import MicroBatch, as_text
from pairform.training.parallel import World


class DistillationSpec(Spec):
    """Distillation from a teacher (Hinton et al. 2015, arXiv 1503.02531, section 2).

    The loss is `(1 - weight) * cross-entropy + weight * temperature ** 2 * KL(teacher || model)`, a mean over label tokens.
    """

    teacher: Annotated[str, Field(min_length=1)] = Field(
        description="Folder or hub id of the teacher: an encoder-decoder that reads the same inputs, or a decoder-only model "
        "that reads each source and target as one text, with the same vocabulary. Relative to the working directory."
    )
    weight: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.5, description="Weight of the divergence from the teacher; that of the cross-entropy is one minus it."
    )
    temperature: PositiveFloat = Field(default=1.0, description="Divides the logits of both models in the divergence.")
    bos: bool = Field(
        default=True,
        description="Begin each text with the bos token of a decoder-only teacher, if it has one, as Gemma was trained.",
    )


@dataclass(frozen=True)
class Terms:
    """The terms of a run's loss besides the cross-entropy, for each micro-batch.

    z_loss:  its coefficient.
    teacher: in eval mode; None: there is no distillation.
    """

    device: torch.device
    z_loss: float = 0.0
    spec: DistillationSpec | None = None
    teacher: Model | None = None

    @contextlib.contextmanager
    def of(self, micro: MicroBatch) -> Iterator[LossTerms]:
        """The terms, for one forward pass within the block: a sharded teacher's table is gathered meanwhile."""
        terms = LossTerms(self.z_loss)
        if self.teacher is None or self.spec is None:
            yield terms
            return
        try:
            yield replace(terms, teacher=prediction(self.teacher, micro, self.spec, self.device))
        finally:
            free(self.teacher)


def open_teacher(folder: Path, precision: Precision, world: World, *, compiled: bool = False) -> Model:
    """A teacher that computes in the dtype of a run's products, sharded over the processes as the model that it teaches."""
    half = precision != "float32"
    if world.mesh is None:
        model = load(folder, device=world.device, dtype=torch.bfloat16 if half else torch.float32)
    else:
        model = load(folder, mesh=world.mesh, precision="bfloat16" if half else "float32")
    if compiled:
        model.compile_layers()
    return model.requires_grad_(False).eval()


def prediction(teacher: Model, micro: MicroBatch, spec: DistillationSpec, device: torch.device) -> Teacher:
    """What a teacher predicts at the labels of a micro-batch.

    Its weights are constants, so no graph is recorded. Gradients stay enabled, since a sharded model frees its table at the end
    of a pass without them.
    """
    inputs, places = read_by(teacher, micro, spec.bos)
    output = teacher(**{name: tensor.to(device, non_blocking=True) for name, tensor in inputs.items()}, output_logits=False)
    head: Any = teacher.head
    assert isinstance(head, LMHead), "checked by check_teacher"
    assert isinstance(output.prediction, Prediction)
    made = head.as_teacher(output.prediction, spec.weight, spec.temperature)
    return made if places is None else replace(made, hidden=made.hidden.flatten(0, 1)[places.to(device)])


def read_by(teacher: Model, micro: MicroBatch, bos: bool) -> tuple[dict[str, Tensor], Tensor | None]:
    """The teacher's arguments, and where its text predicts each label, as `as_text`; None: at the labels' own places."""
    tokens = teacher.spec.tokens
    if teacher.encoder is None:
        return as_text(micro.rows, tokens.pad or 0, tokens.bos if bos else None)
    inputs = {name: tensor for name, tensor in micro.inputs.items() if name != "labels"}
    shifted = teacher.shift_right(micro.inputs["labels"], inputs.get("decoder_segment_ids"))
    return inputs | {"decoder_input_ids": shifted}, None


def free(teacher: Any) -> None:
    """Free the gathered weights of a sharded teacher, and what FSDP records of a forward pass for a backward pass."""
    if hasattr(teacher, "reset_iter_state"):  # torch 2.13
        teacher.reset_iter_state()
    elif hasattr(teacher, "reshard"):
        teacher.reshard()
