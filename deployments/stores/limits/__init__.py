"""Limits that hold across every replica: what was used of them, counted in one place."""
