"""The policy network: one Transformer for sampling and for training, loaded from ordinary Hugging Face folders."""
