"""Runs what a page of the docs shows, and writes into the page what was printed.

    python bench/transcript.py docs/tutorial.md --work tutorial

Every line after a `$` in a console block is run, in order, in the folder --work, and what it prints on stdout replaces
what stood under it. Files that the page shows under a name are written first. A command that fails ends it, and the
page stays as it was.
"""

import argparse
import os
import re
import subprocess
import sys
import time
from pathlib import Path

BLOCK = re.compile(r"^```(?P<language>\w+) ?(?P<name>[^\n]*)\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("page", type=Path)
    parser.add_argument("--work", type=Path, required=True, help="the folder to run in; what the page needs lies there")
    asked = parser.parse_args()
    asked.work.mkdir(parents=True, exist_ok=True)
    page = asked.page.read_text(encoding="utf-8")
    asked.page.write_text(filled(page, asked.work.resolve()), encoding="utf-8")


def filled(page: str, work: Path) -> str:
    """The page with what its commands print now; SystemExit names one that fails."""

    def run_block(block: re.Match[str]) -> str:
        if block["language"] == "console":
            commands = re.findall(r"^\$ ((?:.*\\\n)*.*)$", block["text"], re.MULTILINE)
            return "```console\n" + "".join(f"$ {command}\n{_run(command, work)}" for command in commands) + "```"
        if block["name"]:
            place = work / block["name"]
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(block["text"], encoding="utf-8")
        return block[0]

    return BLOCK.sub(run_block, page)


def _run(command: str, work: Path) -> str:
    started = time.monotonic()
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(command, shell=True, cwd=work, env=environment, capture_output=True, text=True, check=False)
    print(f"{time.monotonic() - started:6.1f} s  {command}", file=sys.stderr, flush=True)
    if done.returncode:
        raise SystemExit(f"{command}: {done.stderr}")
    return done.stdout.replace(f"{work}{os.sep}", "")


if __name__ == "__main__":
    main()
