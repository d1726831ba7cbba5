"""Splits of tracks and events into training, validation and test.

splits   makes, stores and loads a split
assign   assigns tracks to a part of the split
leakage  checks that no held-out track reaches training
"""
