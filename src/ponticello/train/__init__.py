"""Training of both stages.

semantic            stage one, from tables to a saved model
preference          stage two over log-mels, from the mined pairs to a saved model
preference_space    stage two over a frozen front end, from likes to a saved model
preference_encoder  the two ways to fit its encoder: contrast and regression
listener_sets       batches of listeners' likes, and their loss
questions           questions that stage one learns beside the tracks' texts
contrastive         the task of stages over log-mels: batches of matched rows, loss, validation
loop                what all share: the training loop, validation, checkpoints, resuming
schedule            the optimiser, learning rates, number of steps, patience
losses              the contrastive losses of matched rows
stages              what differs between the stages
dataset             tracks and pairs as data sets
gradcache           exact gradients of large batches in chunks
distributed         several processes
selection           which weights are served after stage two
runs                the state of a run's folder
readiness           is there enough data to train on
estimate            time, memory and disk of a run
"""
