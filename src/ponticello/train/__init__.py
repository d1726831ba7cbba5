"""Training of both stages.

semantic         stage one, from tables to a saved model
preference       stage two, from the mined pairs to a saved model
contrastive      the task of both stages: batches of matched rows, loss, validation
loop             what both share: the training loop, validation, checkpoints, resuming
schedule         the optimiser, learning rates, number of steps, patience
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
