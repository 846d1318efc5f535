"""Files and batches as rows: what was sent, what is to be done with it, and what came of it."""
