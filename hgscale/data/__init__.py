"""From a world to batches: the stream of samples, and their masking."""
