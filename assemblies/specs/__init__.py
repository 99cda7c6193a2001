"""The specs of layers, stacks and models, and operations on them."""
