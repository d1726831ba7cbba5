"""Evaluation on tracks and events that training never saw.

run                evaluates a library
vectors            the vectors that are compared
tasks              ranking tasks and scorers
recommendation     preference tasks
words              words that rank tracks by preference
retrieval          text-to-music and music-to-music retrieval
labels             probes and zero-shot labels
tradeoff           semantic against preference quality along the interpolation
validation         scores a model on validation data
baselines          popularity, item-kNN, EASE, ALS, content-kNN
content_baselines  rank cold tracks by factors of their content
sasrec             the SASRec baseline
tuning             tunes the baselines on validation data
results            the records of an evaluation
summary            means and intervals over seeds
claims             sentences that the tests support
report             the report
"""
