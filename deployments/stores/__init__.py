"""Durable state and the indexes derived from it; free of Ray and FastAPI."""
