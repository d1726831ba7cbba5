"""Listening histories as people have them: a file a format, `detect` tells which is which, `ingest` brings them in."""
