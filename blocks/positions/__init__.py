"""Positional encodings: rotary, absolute, and score biases."""
