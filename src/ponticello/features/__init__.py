"""Features of tracks, as an encoder reads them: computed once, stored, read back.

store             feature shards on disk
prepare           computes the features of a library, resumable
extraction        runs an extraction job on files in worker processes
frontend          the interface of frozen front ends, and which one a library uses
musicnn           the MusiCNN taggers
musicnn_frontend  MusiCNN as a front end, and machine tags
huggingface       Hugging Face audio encoders as a front end
precomputed       vectors computed by other programs as a front end
fingerprint       finds tracks that hold the same recording
ray_tasks         runs tasks on a Ray cluster
"""
