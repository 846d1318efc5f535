"""Stands where pandas would be found, and is not it."""

raise ImportError("pandas is kept out of this process: see deployments/absent")
