"""The robustness suite: each promise, and many tries to break it.

make break                                  every row; writes docs/break-it.md
make break FAST=1                           fewer tries of each row; writes nothing
make break ROW=store-killed TRIES=20 SEED=5
"""
