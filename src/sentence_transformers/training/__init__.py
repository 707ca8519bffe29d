"""Training: the trainer, its arguments, and what feeds it."""
