"""Search over the vectors of a library.

embed           computes the vectors of a library
index           the index, queries and scores
generations     the index on disk
backends        chooses how nearest rows are found
exact           exact search
faiss_index     approximate search with FAISS
pgvector_index  search in PostgreSQL with pgvector
queries         queries in words, by sound, by tracks, and their sums
ranking         filters, deduplication, tracks per artist
service         one search service for Python, the command line and HTTP
user_profiles   a user's profile as a regression over liked tracks
user_history    the log by user, and which users fit a track
export          vectors and profiles as tables
"""
