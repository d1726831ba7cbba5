"""bench/transcript.py: a page's commands are run in order, and the page then shows what they printed."""

from pathlib import Path

import pytest

from transcript import filled

PAGE = """# A page

```csv table.csv
a,b
1,2
```

```console
$ cat table.csv
something old
$ echo one \\
    two
```

```python
print("not run here")
```
"""


def test_what_is_printed_takes_the_place_of_what_stood_there(tmp_path: Path) -> None:
    shown = filled(PAGE, tmp_path)
    assert "$ cat table.csv\na,b\n1,2\n$ echo one \\\n    two\none two\n```\n" in shown
    assert "something old" not in shown
    assert shown.startswith("# A page\n\n```csv table.csv\na,b\n1,2\n```\n")
    assert shown.endswith('```python\nprint("not run here")\n```\n')
    assert filled(shown, tmp_path) == shown


def test_the_working_folder_is_left_out_of_what_is_shown(tmp_path: Path) -> None:
    assert filled("```console\n$ echo $PWD/file\n```\n", tmp_path) == "```console\n$ echo $PWD/file\nfile\n```\n"


def test_a_command_that_fails_ends_it(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="false"):
        filled("```console\n$ false\n```\n", tmp_path)
