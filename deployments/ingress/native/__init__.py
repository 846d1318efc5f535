"""The native surface: inference, data, and what an operator asks."""
