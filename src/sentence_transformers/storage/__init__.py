"""Model folders: finding, reading, checking, writing and publishing them."""
