"""Positional encodings: rotary, absolute, and biases on attention scores."""
