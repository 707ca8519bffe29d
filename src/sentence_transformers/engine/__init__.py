"""Texts to vectors: plan, tokens, packed batches, one loop, many workers."""
