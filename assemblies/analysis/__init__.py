"""Costs and diagrams of specs: parameters, FLOPs, cache bytes."""
