"""What a command says when it cannot go on."""


class Refused(Exception):
    """One line for the person at the terminal: what is wrong, and what to do. The exit code is 2."""
