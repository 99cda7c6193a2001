"""The tensors of mixtures: one per expert, as transformers saves them, or one for all experts, as it holds them in memory."""

from pairform.assemblies.families.family import Fused, NameTable, Row
from pairform.assemblies.families.rows import HEADS, PRE_NORMS, stack_rows

LAYER, OWN = "model.layers.{layer}.", "decoder.layers.{layer}.feed_forward.block."
EXPERT = OWN + "experts.{expert}."
STACK = stack_rows("model.", "decoder", PRE_NORMS)
TOGETHER = (
    Row(LAYER + "mlp.gate.weight", OWN + "router"),
    Fused(LAYER + "mlp.experts.gate_up_proj", tuple(f"{EXPERT}{side}_proj.weight" for side in ("gate", "up"))),
    Fused(LAYER + "mlp.experts.down_proj", (EXPERT + "down_proj.weight",)),
)
MIXTRAL_EXPERTS = (
    Row(LAYER + "block_sparse_moe.gate.weight", OWN + "router"),
    Row(LAYER + "block_sparse_moe.experts.{expert}.w1.weight", EXPERT + "gate_proj.weight"),
    Row(LAYER + "block_sparse_moe.experts.{expert}.w2.weight", EXPERT + "down_proj.weight"),
    Row(LAYER + "block_sparse_moe.experts.{expert}.w3.weight", EXPERT + "up_proj.weight"),
)
QWEN3_EXPERTS = (Row(LAYER + "mlp.experts.{expert}.{side}_proj.weight", EXPERT + "{side}_proj.weight"),)
MIXTRAL = NameTable((*MIXTRAL_EXPERTS, *TOGETHER, *STACK, *HEADS))
QWEN3 = NameTable((*QWEN3_EXPERTS, *TOGETHER, *STACK, *HEADS))
