"""Compiling with Numba."""

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

Function = TypeVar("Function", bound=Callable[..., Any])


def jit(function: Function) -> Function:
    """Compile `function` on its first call for each type of argument, to run without the interpreter's lock.

    The machine code is kept on disk for the next process, where there is a folder to keep it in.
    """
    try:
        return cast(Function, numba.njit(nogil=True, cache=True)(function))
    except RuntimeError:  # a read-only installation, and no home directory
        return cast(Function, numba.njit(nogil=True)(function))
