"""Modules built from specs: layers, stacks and models, with their inputs and outputs."""
