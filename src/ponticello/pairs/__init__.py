"""Mining of (anchor, positive) pairs from the listening log.

mine    mines a library's pairs
rules   which events make two tracks a pair: session, feedback, playlist, co-occurrence
count   counts users per pair, applies the caps and the lift
events  encodes the log as numbered tables
engine  runs the rules on DuckDB or Spark
"""
