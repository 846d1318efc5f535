"""Texts to clean texts: encoding damage, invisible characters, duplicates, personal data."""
