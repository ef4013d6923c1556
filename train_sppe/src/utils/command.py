"""What the commands here share: which words they take, and how they end where something is wrong."""

import argparse
import contextlib
import sys
from collections.abc import Iterable, Iterator


@contextlib.contextmanager
def complaints(command: str, *more: type[Exception]) -> Iterator[None]:
    """A ValueError, an OSError, or one of `more` in the body ends the command: one sentence on stderr, exit code 2."""
    try:
        yield
    except (ValueError, OSError, *more) as error:
        print(f"{command}: {sentence(error)}", file=sys.stderr)
        sys.exit(2)


def sentence(error: Exception) -> str:
    """What an error says, without the traceback that a DataLoader puts before the words of its worker."""
    text = str(error).strip()
    return text.split("\n")[-1].removeprefix("ValueError: ") if text.startswith("Caught ") else text.split("\n")[0]


def one_of(opt: argparse.Namespace, **choices: Iterable[str]) -> None:
    """Raise ValueError for the first option whose value is not among its choices; None passes."""
    for name, allowed in choices.items():
        value = getattr(opt, name)
        if value is not None and value not in allowed:
            raise ValueError(f"unknown --{name} {value!r}; choose one of {', '.join(allowed)}")
