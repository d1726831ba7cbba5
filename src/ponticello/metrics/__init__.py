"""Metrics of rankings and of embedding spaces, and their intervals.

ranking          recall, NDCG, MRR, AUC, average precision
beyond_accuracy  coverage, popularity, artists, hubs
embedding_space  collapse, alignment, uniformity, modality gap
bootstrap        cluster bootstrap, sign-flip test, Holm correction
"""
