"""Training: one optimizer step, checkpoints, the loop, and the tasks. Importable without Ray and without DeepSpeed."""
