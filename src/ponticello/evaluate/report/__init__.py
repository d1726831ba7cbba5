"""The report of an evaluation.

write     writes every file of the report
data      evaluation.json and queries.parquet
html      index.html
plots     interval plots and the trade-off
tables    tables and number formats
markdown  Markdown tables, the terminal summary and the model card
latex     LaTeX tables
"""
