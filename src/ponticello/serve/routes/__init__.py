"""The routes of the HTTP service.

search     search, similar, recommend, audience
library    health, tracks, columns, users
audio      audio files and waveforms
uploads    uploaded sounds
playlists  M3U8, JSPF and CSV
paths      paths between two tracks
subsonic   OpenSubsonic's sonicSimilarity
"""
