"""What `generate` and `chat` share: streams of text, many inputs, conversations."""
