"""What a person sees while a model trains, and what stays on disk of it."""

import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from transformers import TrainerCallback

from ponticello.library import replacing


class ProgressBar(TrainerCallback):
    """A bar on stderr with steps, rate, time left, loss and the last validation."""

    def __init__(self, title: str) -> None:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=12),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
        )
        self.bar = Progress(*columns, console=Console(stderr=True), transient=False)
        self.task = self.bar.add_task(title, total=None, rate="", note="")
        self.notes = {"loss": "", "validation": ""}

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Starts at the step the run resumes from."""
        self.bar.update(self.task, total=state.max_steps, completed=state.global_step)
        self.bar.start()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Moves on by one step."""
        speed = self.bar.tasks[0].speed
        rate = f"{speed:.1f} steps/s" if speed else ""
        self.bar.update(self.task, completed=state.global_step, rate=rate)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
        """Shows the newest loss, or the newest validation."""
        logs = logs or {}
        if "loss" in logs:
            self.notes["loss"] = f"loss {logs['loss']:.3f}"
        if "eval_mrr" in logs:
            self.notes["validation"] = f"validation MRR {logs['eval_mrr']:.3f}"
        self.bar.update(self.task, note="  ".join(note for note in self.notes.values() if note))

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Leaves the finished bar on the screen."""
        self.stop()

    def stop(self) -> None:
        """Leaves the bar as it is and shows the cursor again, once."""
        if self.bar.live.is_started:
            self.bar.stop()


class LogFile(TrainerCallback):
    """log.jsonl: one line a logged step, every part of the loss and every validation; whole after each checkpoint."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Writes what has been logged up to this checkpoint."""
        self._write(state)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Writes the whole log."""
        self._write(state)

    def _write(self, state: Any) -> None:
        if state.is_world_process_zero:
            with replacing(self.path) as temporary:
                temporary.write_text("".join(json.dumps(entry) + "\n" for entry in state.log_history), encoding="utf-8")
