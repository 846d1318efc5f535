"""The engine over transformers' continuous batching, for CPU and GPU."""
