"""Generating token ids: greedy decoding, sampling, beam search, the compiled decoding step."""
