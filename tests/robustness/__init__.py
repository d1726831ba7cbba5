"""The robustness suite: each promise, and many tries to break it.

make break                       every row, within an hour on two idle cores; writes
docs/break-it.md make break FAST=1                fewer tries of each row, within five minutes;
writes nothing make break ROW=store-killed TRIES=20 SEED=5
"""
