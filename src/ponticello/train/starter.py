"""The model that comes with the package, as stage one of a library that has trained none."""

from pathlib import Path

from ponticello.library import Folder
from ponticello.model.starter import N_TRACKS, SHA256, build_starter, starter_settings
from ponticello.train.checkpoints import publish, read_record, write_record
from ponticello.train.finished import RUN_FILE, STARTER, is_finished


def starter_run(folder: Folder) -> Path:
    """The starter model as a finished stage one of the library, named "starter": assembled when it is not there yet.

    It is assembled anew where the package brings another one, or the settings ask for another reading of the sound.
    CheckpointError as `build_starter`.
    """
    run, config = folder.run(STARTER), starter_settings(folder.config)
    settings = {**config.model_dump(mode="json"), STARTER: SHA256}
    if not is_finished(run) or read_record(run / RUN_FILE)["settings"] != settings:
        (run / RUN_FILE).unlink(missing_ok=True)
        build_starter(folder.config).save_pretrained(run / "finished")
        publish(run / "finished", run)
        record = {"stage": "semantic", "n_rows": N_TRACKS, "n_left_out": 0, "n_steps": 0, "best": {}}
        write_record(run / RUN_FILE, {**record, "settings": settings})
    return run
