"""A stage's settings in the words of `transformers.Trainer`."""

import os
from pathlib import Path

import torch
from transformers import TrainingArguments

from ponticello.config import StageConfig

LOG_EVERY = 5  # steps; the parts of the loss are means over them
BEST_BY = "eval_mrr"  # not the loss: on few tracks it rises with confidence while the ranking still improves


def training_device(settings: StageConfig) -> torch.device:
    """Where the Trainer will put the model of a stage: what is computed before its first step belongs there, too."""
    return training_arguments(settings, Path(), batch_size=2, steps_per_epoch=1).device


def training_arguments(
    settings: StageConfig, checkpoints: Path, batch_size: int, steps_per_epoch: int
) -> TrainingArguments:
    """Our settings in the Trainer's words."""
    too_few = settings.epochs * steps_per_epoch < settings.min_steps
    return TrainingArguments(
        output_dir=str(checkpoints),
        per_device_train_batch_size=batch_size,
        num_train_epochs=settings.epochs,
        max_steps=settings.min_steps if settings.max_steps < 1 and too_few else settings.max_steps,
        learning_rate=settings.heads_lr,
        weight_decay=settings.weight_decay,
        warmup_steps=settings.warmup_share,
        lr_scheduler_type="cosine" if settings.schedule == "cosine" else "constant_with_warmup",
        max_grad_norm=settings.max_grad_norm,
        bf16=settings.bf16,
        # bf16 asks for it; and of several processes without it each would train alone, unsaid.
        use_cpu=(settings.bf16 or "WORLD_SIZE" in os.environ) and not torch.cuda.is_available(),
        seed=settings.seed,
        data_seed=settings.seed,
        eval_strategy="steps",
        eval_steps=settings.evaluate_every,
        save_strategy="steps",
        save_steps=settings.evaluate_every,
        save_total_limit=2,
        load_best_model_at_end=True,
        metric_for_best_model=BEST_BY,
        greater_is_better=True,
        logging_steps=LOG_EVERY,
        logging_nan_inf_filter=False,
        dataloader_drop_last=True,
        dataloader_pin_memory=torch.cuda.is_available(),
        ddp_find_unused_parameters=False,
        ddp_backend="gloo" if "WORLD_SIZE" in os.environ and not torch.cuda.is_available() else None,
        remove_unused_columns=False,
        report_to="none",
        disable_tqdm=True,
    )
