"""Search over the vectors of a library.

embed           computes the vectors of a library
index           the index, queries, their sums, scores and exact search
generations     the index on disk, and the choice of its backend
faiss_index     approximate search with FAISS
pgvector_index  search in PostgreSQL with pgvector
results         ranked lists, and filters
service         one search service for Python, the command line and HTTP
user_profiles   a user's profile as a regression over liked tracks
user_history    the log by user, and which users fit a track
export          vectors and profiles as tables
"""
