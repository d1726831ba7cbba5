"""What a finished run leaves in its folder, and how one is told from a run that is not done."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from ponticello.config import Config
from ponticello.errors import CheckpointError
from ponticello.model.htcl_config import MODEL_PARTS
from ponticello.model.space import saved_config
from ponticello.train.checkpoints import read_record

STARTER = "starter"  # a run's name that no trained run may take
STAGE_ONE = "stage one"  # what a record of stage two says it began from, by the name of its space
RUN_FILE = "run.json"  # written last: its presence says that the run is finished
_RECORDED = ("stage", "n_rows", "n_left_out", "n_steps", "best", "settings")  # in every version
_MODEL = ("config.json", "model.safetensors")


@dataclass(frozen=True)
class TrainedRun:
    """What a finished run amounts to."""

    folder: Path
    stage: str
    n_rows: int  # tracks or pairs trained on
    n_left_out: int  # rows without audio or text
    n_steps: int
    best: dict[str, float]  # the validation the trained weights had
    balance: dict[str, Any] | None = None  # stage two: how far from stage one the kept weights are, see `Balance`


def is_finished(run: Path) -> bool:
    """Whether the run at `run` has ended and its model can be used."""
    return (run / RUN_FILE).is_file()


def finished_run(run: Path, stage: str, config: Config | None, begun_from: str | None = None) -> TrainedRun | None:
    """The run at `run` if it is done; CheckpointError if it is damaged, of the other stage, or not made with `config`.

    begun_from: the space of the stage one that is asked for, which a stage two must have begun from.
    """
    if not is_finished(run):
        return None
    record = read_record(run / RUN_FILE)
    lacking = [name for name in _RECORDED if name not in record]
    if lacking:
        raise CheckpointError(f"{run / RUN_FILE} does not say {', '.join(lacking)}; delete {run} and train again")
    gone = [name for name in _MODEL if not (run / name).is_file()]
    if gone:
        raise CheckpointError(f"run {run.name!r} is finished, but its {gone[0]} is gone; delete {run} and train again")
    if record["stage"] != stage:
        raise CheckpointError(f"run {run.name!r} is of stage {record['stage']}; choose another --name")
    if config is not None:
        made_with = saved_config(record["settings"], run / RUN_FILE)
        changed = [part for part in (stage, *MODEL_PARTS) if getattr(config, part) != getattr(made_with, part)]
        if changed:
            raise CheckpointError(
                f"run {run.name!r} is finished, with other settings in [{changed[0]}]; choose another --name, "
                f"or delete {run}"
            )
    if begun_from and record.get(STAGE_ONE) not in (None, begun_from):
        raise CheckpointError(
            f"run {run.name!r} is finished, and began from another stage one; choose another --name, or delete {run}"
        )
    return TrainedRun(
        folder=run, **{field.name: record[field.name] for field in fields(TrainedRun) if field.name in record}
    )
