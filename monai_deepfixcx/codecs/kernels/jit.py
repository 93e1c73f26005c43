"""Compiling with Numba."""

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

Function = TypeVar("Function", bound=Callable[..., Any])


def jit(function: Function) -> Function:
    """Compile `function` on its first call for each type of argument, to run without the interpreter's lock.

    The machine code is kept on disk for the next process, where there is a folder to keep it in. It is made anew when
    the file that defines `function` changes, not when one does whose functions it calls.
    """
    try:
        return cast(Function, numba.njit(nogil=True, cache=True)(function))
    except RuntimeError:  # a read-only installation, and no home directory
        return cast(Function, numba.njit(nogil=True)(function))


def _prefetch(_: Any, rows: Any, i: Any) -> Any:
    """Have the processor bring ``rows[i]`` to its second cache, without waiting for it. Only in compiled code."""

    def generate(context: Any, builder: Any, _: Any, values: Any) -> Any:
        array = context.make_array(rows)(context, builder, values[0])
        address = builder.bitcast(builder.gep(array.data, [values[1]]), ir.IntType(8).as_pointer())
        number = ir.IntType(32)
        signature = ir.FunctionType(ir.VoidType(), [address.type, number, number, number])
        llvm = builder.module.declare_intrinsic("llvm.prefetch", [address.type], signature)
        builder.call(llvm, [address, number(0), number(2), number(1)])  # to read, second cache, data
        return context.get_dummy_value()

    return types.void(rows, i), generate


prefetch = cast(Callable[[Any, Any], None], intrinsic(_prefetch))
