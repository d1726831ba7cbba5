"""Readers of listening histories and playlists.

run            imports a file, folder or archive
sources        files in folders and archives
detect         detects a file's format by its content
records        records that readers yield, and parsers of their fields
spotify        Spotify exports
lastfm         Last.fm exports
listenbrainz   ListenBrainz exports
music_servers  databases of Navidrome and beets
playlists      M3U, PLS, XSPF and JSPF
tables         CSV, TSV, JSONL and Parquet
"""
