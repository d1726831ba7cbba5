"""From files and tables to batches: catalogue, sound, listening, pairs, splits."""
