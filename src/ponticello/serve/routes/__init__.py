"""The routes of the HTTP service.

search     search, similar, recommend, explain, audience, paths, maps
library    health, the library's facts, tracks, listeners
audio      audio files and waveforms
uploads    uploaded sounds
playlists  M3U8, JSPF and CSV
subsonic   OpenSubsonic's sonicSimilarity
"""
