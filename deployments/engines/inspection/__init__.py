"""What the files of a model are, found out before anything is loaded: no weights, no code."""
