"""Features of tracks: what an encoder reads, computed once and stored.

store             feature shards on disk
extraction        computes features from files in worker processes
prepare           prepares and tags a library; resumable, on one or several machines
frontend          the interface of frozen front ends, and the choice of one
musicnn           the MusiCNN taggers
musicnn_frontend  MusiCNN as a front end, and machine tags
huggingface       Hugging Face audio encoders as a front end
precomputed       vectors of other programs as a front end
quiet             hides progress bars and log lines of transformers
fingerprint       tracks that hold the same recording
ray_tasks         tasks on a Ray cluster
"""
