"""Dify's external knowledge API: a collection as a knowledge base of a Dify installation."""
