"""Training of both stages.

semantic         both stages from tables to a saved model
loop             the training loop: step, validation, checkpoints
losses           the contrastive losses
stages           what differs between the stages
dataset          tracks and pairs as data sets
gradcache        exact gradients of large batches in chunks
distributed      several processes
preference_init  the initial weights of stage two over a frozen front end
selection        which weights are served after stage two
runs             the state of a run's folder
readiness        is there enough data to train on
estimate         time, memory and disk of a run
"""
