"""Generation of token IDs: greedy decoding, sampling, beam search, the compiled decoding step."""
