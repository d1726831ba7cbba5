"""Processes for tests, forked from one that has imported training and has run nothing.

Importing takes seconds of a core, which every process that is spawned spends anew.
"""

import multiprocessing
from multiprocessing.context import ForkServerContext


def fork_context() -> ForkServerContext:
    """Returns the context; its server is started with the first process and serves all tests."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.train.test_semantic_and_preference"])
    return context
