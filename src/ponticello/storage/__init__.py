"""The library folder on disk: paths, safe writes, and tables that are checked when they are read.

layout      paths of a library, its lock, the list of skipped rows
files       atomic writes, hashes, CSV cells
schema      names and types of the tables' columns
tables      CSV, JSONL and Parquet readers that keep line numbers
validation  checks of imported rows
"""
