"""The spec of an encoder-decoder made of two pretrained models."""
