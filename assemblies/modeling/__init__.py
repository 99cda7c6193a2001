"""From spec to module: layers, stacks, models, their inputs and outputs."""
