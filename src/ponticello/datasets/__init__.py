"""Readers of public data sets, and simulated listeners for the demo.

registry   the list of public sets, and import-dataset
tables     finds, reads and checks the files of a set
tagging    MTG-Jamendo, MagnaTagATune, GTZAN
fma        Free Music Archive
captions   MusicCaps, Song Describer
music4all  Music4All and Music4All-Onion
listening  HetRec 2011 Last.fm, Melon
yambda     Yambda
simulated  simulated listeners
"""
