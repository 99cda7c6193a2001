"""Publishing models on the Hugging Face hub, with their model cards."""
