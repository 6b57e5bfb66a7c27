"""What ends a measurement with one line for the operator, instead of a traceback."""


class Failure(Exception):
    """Says what failed, on what, and why."""
