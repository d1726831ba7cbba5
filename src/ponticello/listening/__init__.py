"""The listening log: importing histories, matching them to tracks, pseudonyms.

log         appends, deduplicates and reads events
matching    matches entries of a history to tracks
unmatched   keeps entries without a track and suggests near ones
pseudonyms  hashes user names
importers   one reader for each format of a history
"""
