"""Learning-rate schedules."""

import math

from pairform.training.settings import ScheduleSpec


def rate(schedule: ScheduleSpec, step: int, steps: int) -> float:
    """Learning rate of a step, from 0, as a fraction of the peak."""
    if step < schedule.warmup:
        return (step + 1) / (schedule.warmup + 1)
    if schedule.name == "constant":
        return 1.0
    begin = schedule.warmup if schedule.name != "wsd" else max(schedule.warmup, steps - round(schedule.decay * steps))
    progress = min(1.0, max(0.0, (step - begin) / max(1, steps - begin)))
    height = (1 + math.cos(math.pi * progress)) / 2 if schedule.name == "cosine" else 1 - progress
    return schedule.final + (1 - schedule.final) * height
