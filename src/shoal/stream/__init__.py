"""Streams: endless iterators of batches that hide the parallelism from the algorithms."""
