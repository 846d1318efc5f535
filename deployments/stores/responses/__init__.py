"""Where answers are kept for a short while, so that the same question is computed once."""
