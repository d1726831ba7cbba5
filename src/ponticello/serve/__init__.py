"""The library over HTTP, and the explorer."""
