"""The command line: arguments to verbs, nothing else.

Results go to standard output, everything else to standard error. Exit codes: 0 fine, 2 bad
input, 3 a check failed, 4 training diverged, 130 stopped by a signal.
"""

from __future__ import annotations

import itertools
import json
import logging
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from typing import get_args, get_type_hints

from monge.data.images.raw import shown_lines
from monge.errors import CheckFailed, Stopped, UserError
from monge.system import own_code, own_faults, processes
from monge.verbs import table
from monge.verbs.near_misses import refuse_unknown

STOPPED = 130
"""The exit code of a command that a signal stopped."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help", "help"):
        print(table.help_text(), end="")
        return 0 if words else 2
    if words[0] in ("--version", "version"):
        from monge import __version__

        print(f"monge {__version__}")
        return 0
    as_json = "--json" in words
    try:
        with processes.together(), _without_warnings():
            return _run(words[0], words[1:])
    except Stopped as stopped:  # as asked, and saved: no error
        print(shown_lines(str(stopped)), file=sys.stderr)
        if as_json:
            print(json.dumps({"stopped": str(stopped), "exit_code": stopped.exit_code}))
        return stopped.exit_code
    except UserError as error:
        print(f"error: {shown_lines(str(error))}", file=sys.stderr)
        if as_json:
            found = {"error": str(error), "exit_code": error.exit_code}
            measured = error.found if isinstance(error, CheckFailed) else {}
            print(json.dumps({**measured, **found}, indent=1, default=str))
        return error.exit_code
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return STOPPED
    except BrokenPipeError:
        return 0


def _run(name: str, words: list[str]) -> int:
    import tyro

    verb = table.find(name)
    if any(word in ("-h", "--help") for word in _before_dashes(words)):
        from monge.verbs.help import page
        from monge.verbs.shown import width

        if processes.is_main():
            print(page(verb, width()), end="")
        return 0
    words = _spell_switches(verb.arguments, verb.respelt(words))
    try:
        refuse_unknown(verb, words)
    except UserError as error:
        if processes.is_main():
            raise
        return error.exit_code
    default = verb.starting_point(words)
    words = _spell_none(verb.arguments, words)
    try:
        with _heard_once():
            arguments = tyro.cli(verb.arguments, args=words, prog=f"monge {name}", default=default)
    except SystemExit as exit_:
        code = int(exit_.code or 0)
        if code and "--json" in words and processes.is_main():
            message = "bad arguments, as told on standard error"
            print(json.dumps({"error": message, "exit_code": code}))
        return code
    if not processes.is_main() and not verb.shared:
        return 0
    if getattr(arguments, "trust_code", False):
        own_code.trust_all()
    with own_faults.blamed(anywhere=True):
        result = verb.act(arguments)
    if "--json" in words and processes.is_main():
        print(json.dumps(result, indent=1, default=str))
    return result.get("exit_code", 0) if isinstance(result, dict) else 0


def _before_dashes(words: Sequence[str]) -> Sequence[str]:
    """The words before a bare ``--``, after which all are values."""
    return words[: words.index("--")] if "--" in words else words


@contextmanager
def _without_warnings() -> Iterator[None]:
    """What libraries warn of, such as fonts and their own future, is for their users: for us.

    Python's own -W and PYTHONWARNINGS show them.
    """
    if sys.warnoptions:
        yield
        return
    last, level = logging.lastResort, logging.WARNING
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        before = os.environ.get("PYTHONWARNINGS")
        os.environ["PYTHONWARNINGS"] = "ignore"  # of the processes that are started, too
        if last is not None:
            last.setLevel(logging.ERROR)
        try:
            yield
        finally:
            if last is not None:
                last.setLevel(level)
            if before is None:
                del os.environ["PYTHONWARNINGS"]


@contextmanager
def _heard_once() -> Iterator[None]:
    """What all processes would print alike, from the main one alone."""
    with ExitStack() as stack:
        if not processes.is_main():
            void = stack.enter_context(open(os.devnull, "w"))
            stack.enter_context(redirect_stdout(void))
            stack.enter_context(redirect_stderr(void))
        yield


def _spell_switches(arguments: type, words: list[str]) -> list[str]:
    """Flags of three positions: on where they are given alone, off where ``--no-`` is before."""
    hints = get_type_hints(arguments)
    switches = {f"--{name.replace('_', '-')}": get_args(hint) for name, hint in hints.items()}
    switches = {flag: options for flag, options in switches.items() if "on" in options}
    spelt: list[str] = []
    end = len(_before_dashes(words))
    for word, after in itertools.pairwise([*words[:end], ""]):
        if word in switches and after not in switches[word]:
            spelt.append(f"{word}=on")
        elif word.startswith("--no-") and "--" + word.removeprefix("--no-") in switches:
            spelt.append(f"--{word.removeprefix('--no-')}=off")
        else:
            spelt.append(word)
    return spelt + words[end:]


def _spell_none(arguments: type, words: list[str]) -> list[str]:
    """ "none" as the parser spells it, for the flags that may be left without a value."""
    hints = get_type_hints(arguments)
    optional = {
        "--" + name.replace("_", "-")
        for name, hint in hints.items()
        if type(None) in get_args(hint) and "none" not in str(hint)
    }
    spelt = []
    for before, word in zip(["", *words], words, strict=False):
        flag, equals, value = word.partition("=")
        if before in optional and word.lower() == "none":
            word = "None"
        elif flag in optional and equals and value.lower() == "none":
            word = f"{flag}=None"
        spelt.append(word)
    return spelt
