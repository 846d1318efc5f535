"""What a client may send, and within which bounds. It does not know what becomes of it."""
