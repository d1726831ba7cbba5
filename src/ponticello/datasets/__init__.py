"""Public data sets, and made-up data for tests and the demo.

registry   the list of public sets, and import-dataset
tables     reading helpers that the sets share
tagging    MTG-Jamendo, MagnaTagATune, GTZAN
fma        Free Music Archive
captions   MusicCaps, Song Describer
music4all  Music4All and Music4All-Onion
listening  HetRec 2011 Last.fm, Melon
yambda     Yambda
simulated  simulated listeners
synthetic  synthetic sounds
"""
