"""Errors a user can cause. The command line prints their message as one line and exits with their code."""


class UserError(Exception):
    """Wrong input, configuration or file; the message says what is wrong and what to do."""

    exit_code = 2


class DataError(UserError):
    """Data on disk is damaged or not what was written."""

    exit_code = 3


class StorageError(UserError):
    """An object store refused, or cannot be reached; what was stored is intact and the same command goes on."""

    exit_code = 4


class WorkError(UserError):
    """Part of the work could not be done though it was tried again; all else is committed."""

    exit_code = 5
