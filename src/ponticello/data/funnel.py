"""What each rule of mining left, in words."""

from dataclasses import dataclass

from ponticello.config import PairsConfig


@dataclass(frozen=True)
class Funnel:
    """How many were left after each step of mining, in order, and the settings that decided it."""

    steps: tuple[tuple[str, int], ...]
    config: PairsConfig

    def lines(self) -> list[str]:
        """One readable line a step: what is left, and what was dropped there and why."""
        counts, config = dict(self.steps), self.config
        per_listener = f"over {config.max_pairs_per_user:,} of one listener and source"
        reasons = {
            "positive events": ("events", f"skips, dislikes and plays under {config.min_played_s:g} s"),
            "after the cap a listener": ("candidates", per_listener),
            "with enough listeners": ("pairs", f"fewer than {config.min_listeners} listeners"),
            "likelier than chance": ("with enough listeners", "liked together no more than chance has it"),
            "after the cap a track": ("likelier than chance", f"over {config.max_pairs_per_track:,} of one track"),
        }
        lines = []
        for step, n in self.steps:
            before, reason = reasons.get(step, (step, ""))
            dropped = f"  ({counts[before] - n:,} dropped: {reason})" if reason else ""
            lines.append(f"{n:>13,}  {step}{dropped}")
        if config.min_listeners < 3:
            lines.append(
                f"Careful: with min_listeners at {config.min_listeners} a pair may rest on, and reveal, one person; "
                "set it to 3 or more before you share the pairs, or a model trained on them."
            )
        return lines
