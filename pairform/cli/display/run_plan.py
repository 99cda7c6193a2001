"""What `adapt plan` prints."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pairform.training.adaptation.planning import RunPlan

MODEL = ("encoder", "decoder", "embedding", "vision", "bridge", "head")


def print_run_plan(plan: "RunPlan") -> None:
    """The model, the batch, the memory of a process, FLOPs, time and disk."""
    parts = ", ".join(f"{name} {plan.parameters[name]:,}" for name in MODEL if plan.parameters[name])
    rows, tokens = plan.rows, plan.tokens
    line("parameters", f"{plan.parameters['total']:,} ({parts})")
    line("trained", ", then ".join(f"{phase['trained']:,} for {phase['steps']:,} steps" for phase in plan.phases))
    passes = f"{number(rows['passes'], 'forward pass', 'es')} of {number(rows['micro'], 'row')}"
    where = "" if plan.processes == 1 else f" on each of {plan.processes:,} processes"
    line("batch", f"{number(rows['batch'], 'row')}, {tokens['step']:,} tokens: {passes}{where}")
    data = "data not prepared yet" if plan.epochs is None else f"{plan.epochs:.2g} epochs"
    line("tokens", f"{tokens['run']:,} in {plan.steps:,} steps, {data}")
    print(f"\nmemory of {'the process' if plan.processes == 1 else 'each process'}")
    memory, gathered, activations = plan.memory, plan.gathered, plan.checkpointing
    notes = {
        "gathered": f"{size(gathered['root'])} outside of layers, {size(gathered['layers'])} of layers",
        "activations": f"{size(activations['none'])} without checkpointing, {size(activations['all'])} with it in all layers",
        "working": "logits, or the gradients of a layer's activations",
    }
    for name, value in (vars(memory) | {"total": memory.total}).items():
        note = f" ({notes[name]})" if name in notes and value else ""
        if name != "teacher" or value:
            line(name, f"{size(value):>9}{note}")
    flops, days = plan.flops, plan.days
    recomputed = f", and {flops['recomputed']:.3g} recomputed" if flops["recomputed"] else ""
    taught = f", and {flops['teacher']:.3g} of the teacher" if flops["teacher"] else ""
    print()
    line("FLOPs", f"{flops['token']:.3g} a token, {flops['step']:.3g} a step{recomputed}{taught}, {flops['run']:.3g} in all")
    if plan.peak is None or days is None:
        line("time", "unknown: give --accelerator or --peak")
    else:
        device = f"{plan.processes:,} x {plan.accelerator or 'one device'}"
        speed = f"{100 * plan.mfu:g} % of {plan.peak / 1e12:g} TFLOP/s"
        line("time", f"{duration(days)} on {device} at {speed}: {days * plan.processes:,.3g} GPU-days")
    disk = plan.checkpoint_bytes * plan.checkpoints
    line("disk", f"{size(disk)}: {number(plan.checkpoints, 'checkpoint')} of {size(plan.checkpoint_bytes)}")


def line(name: str, text: str) -> None:
    print(f"{name:<12} {text}")


def number(count: int, noun: str, plural: str = "s") -> str:
    return f"{count:,} {noun}{plural if count > 1 else ''}"


def size(count: float) -> str:
    """Bytes in decimal units."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.4g} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:,.1f} TB"


def duration(days: float) -> str:
    if days >= 2:
        return f"{days:,.1f} days"
    hours = 24 * days
    return f"{hours:.1f} hours" if hours >= 1 else f"{60 * hours:.1f} minutes"
