"""Vectors into answers: the index, questions, ranking."""
