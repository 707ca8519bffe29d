"""Benchmarks: the same work under this library and under the existing one, in alternating processes (`make bench`)."""
