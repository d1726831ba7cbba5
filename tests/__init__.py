"""The tests; they mirror src/ponticello."""
