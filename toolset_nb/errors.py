"""What all errors that a person can put right have in common."""


class ToolsetError(Exception):
    """The message says what is wrong and what would be right; `exit_code` is what a command ends with, which prints it."""

    exit_code = 1


class UsageError(ToolsetError):
    """A command was given something that it cannot work with."""

    exit_code = 2
