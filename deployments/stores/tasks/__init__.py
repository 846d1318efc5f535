"""Tasks as rows: what is to be done, who does it, and what came of it."""
