"""The verbs of the command line: one file each, listed in `table`.

A verb's file holds a frozen dataclass of the verb's arguments with their help, and `act`, which
takes the dataclass, does the work, prints the result, and returns the value that ``--json``
prints. The value may hold an ``exit_code``. A file may also have `starting_point`, which computes
from the words of the command line the arguments that the flags then change.

A new verb is a new file and a row in `table.VERBS`.
"""
