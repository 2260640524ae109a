"""Scores of personalized pictures that can be compared: encoders, metrics, test sets, reports."""
