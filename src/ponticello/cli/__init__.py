"""The ponticello command.

main         the command and its error handling
options      options that commands share
output       output that commands share
imports      init, scan, import-tracks, import-history, import-dataset
prepare      prepare, tag
pairs        mine-pairs
train        train semantic, train preference
search       embed, search, similar, recommend, audience
evaluate     evaluate
serve        serve
export       export, export-explorer, import-weights
maintenance  doctor, forget-user
demo         demo
"""
