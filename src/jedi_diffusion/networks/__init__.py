"""The small model's own networks: a patch autoencoder, a word-level tokenizer and its CLIP text encoder."""
