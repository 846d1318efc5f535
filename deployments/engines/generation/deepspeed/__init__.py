"""The engine over DeepSpeed's tensor parallelism: one model over several ranks."""
