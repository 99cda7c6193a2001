"""What changes the weights: optimisers, learning-rate schedules, phases, averages, and skipped steps."""
