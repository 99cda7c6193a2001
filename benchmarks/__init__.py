"""Timings, always as a ratio against a peer in the same run. Results are committed as JSON in results/."""
