"""Errors that a user can cause. The command line prints the message as one line and exits with the error's code."""


class UserError(Exception):
    """Wrong input, configuration or file. The message names what is wrong and the remedy."""

    exit_code = 2


class DataError(UserError):
    """Data on disk is damaged or differs from what was written."""

    exit_code = 3


class StorageError(UserError):
    """A store or a file system refuses or cannot be reached. What is stored is intact; the same command resumes."""

    exit_code = 4


class WorkError(UserError):
    """Part of the work failed although it was retried; everything else is committed."""

    exit_code = 5


def one_line(error: BaseException, limit: int = 300) -> str:
    """What an error of another library says, in one line of at most `limit` characters; its type if it says nothing."""
    return " ".join(str(error).split())[:limit] or type(error).__name__
