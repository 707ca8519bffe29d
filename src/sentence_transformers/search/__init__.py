"""Search: exact and quantised, pairs, communities."""
