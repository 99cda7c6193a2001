"""Benchmarks. Each timing is a ratio to a peer in the same run. results/ holds the committed results as JSON."""
