"""Scores as pure functions of answers and truth."""
