"""What the vectors are worth, on tracks and days that training never saw."""
