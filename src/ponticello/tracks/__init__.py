"""The catalogue: scanning folders, matching files to tracks, names and texts.

catalog            imports and reads the tracks table
scan               scans a folder of music
file_index         which track each scanned file is
names              parses artists, titles and albums
text               builds the text of a track
"""
