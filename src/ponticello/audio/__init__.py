"""Reads sound files: formats, decoding, log-mel spectrograms, tags and hashes.

formats       detects a file's format by its first bytes
decode        decodes a file to mono samples at a given rate
mel           log-mel spectrograms
tags          reads tags as columns of the catalogue
content_hash  hashes a file's sound without its tags
worker_pool   subprocesses with limits of time and memory
"""
