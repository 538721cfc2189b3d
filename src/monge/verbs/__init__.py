"""The verbs of the command line: one file each, listed in `table`.

A verb's file holds a frozen dataclass, whose fields are the verb's arguments with their help, and
`act`, which takes one of these, does the work, prints the result, and returns what ``--json``
prints. `act` may return an ``exit_code``. A file may also have `starting_point`, which reads the
words of the command line for the arguments that the flags then change.

A new verb is a new file and a row in `table.VERBS`.
"""
