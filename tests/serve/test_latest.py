"""What was asked for lately is not made again, and what was not goes first."""

from ponticello.serve.latest import Latest


def test_the_key_not_asked_for_the_longest_goes_first() -> None:
    made: list[str] = []
    latest: Latest[str, str] = Latest(2)

    def make(key: str) -> str:
        made.append(key)
        return key.upper()

    def ask(key: str) -> str:
        return latest.get(key, lambda: make(key))

    assert [ask(key) for key in "abacba"] == list("ABACBA")
    assert made == ["a", "b", "c", "b", "a"]
    assert len(latest) == 2


def test_what_could_not_be_made_is_tried_again() -> None:
    latest: Latest[int, int] = Latest(1)
    for _ in range(2):
        try:
            latest.get(1, lambda: 1 // 0)
        except ZeroDivisionError:
            continue
        raise AssertionError("it was kept")
    assert latest.get(1, lambda: 5) == 5
