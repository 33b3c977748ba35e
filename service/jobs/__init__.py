"""Batch translation: rows in, rows out, resumed at any moment."""
