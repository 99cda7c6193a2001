"""What a spec or a model is and costs: parameters, FLOPs, cache bytes, diagrams."""
