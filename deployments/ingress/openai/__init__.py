"""The OpenAI surface, to the letter that real clients check."""
