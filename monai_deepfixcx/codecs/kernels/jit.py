"""Compiling with Numba, and what Numba itself has no words for."""

import hashlib
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba.core import types
from numba.core.caching import IndexDataCacheFile
from numba.extending import intrinsic

Function = TypeVar("Function", bound=Callable[..., Any])
_Array = npt.NDArray[Any]


def jit(function: Function) -> Function:
    """Compile `function` on its first call for each type of argument, to run without the interpreter's lock.

    The machine code is kept on disk for the next process, where there is a folder to keep it in, until a Python file
    changes in the folder of the one that defines `function`.
    """
    return _compile(function)


def borrow(function: Function) -> Function:
    """As `jit`, for what compiled code calls often: its arrays are not counted as used, which takes its time.

    It allocates nothing, and returns no array but to another such function.
    """
    return _compile(function, _nrt=False)


def _compile(function: Function, **options: Any) -> Function:
    try:
        compiled: Any = numba.njit(nogil=True, cache=True, **options)(function)
    except RuntimeError:  # a read-only installation, and no home directory
        compiled = numba.njit(nogil=True, **options)(function)
    else:
        cache = compiled._cache
        # Numba looks at one file, and would run what it made of the others before they changed.
        stamp = _stamp(Path(function.__code__.co_filename).parent)
        cache._cache_file = _FilePerType(cache.cache_path, cache._impl.filename_base, stamp)  # type: ignore[no-untyped-call]
    return cast(Function, compiled)


class _FilePerType(IndexDataCacheFile):
    """Machine code on disk, in a file for each type of arguments and processor that says what it is of.

    Numba keeps an index of numbered files instead. Two processes that add to it at once give both their files one
    number, and from then on what was compiled for one type runs on arrays of another.
    """

    def save(self, key: Any, data: Any) -> None:
        with suppress(OSError):  # a full disk: the next process compiles it again
            self._save_data(self._name(key), ((self._version, self._source_stamp, key), data))  # type: ignore[no-untyped-call]

    def load(self, key: Any) -> Any:
        """What was saved for this key from these sources, or None."""
        try:
            kept_for, data = self._load_data(self._name(key))  # type: ignore[no-untyped-call]
        except Exception:  # not there, or damaged in whatever way
            return None
        return data if kept_for == (self._version, self._source_stamp, key) else None

    def _name(self, key: Any) -> str:
        types_and_processor = repr(key[:2])  # not the function's text: what it was before is replaced
        digest = hashlib.sha256(types_and_processor.encode()).hexdigest()[:16]
        return str(self._data_name_pattern).format(number=int(digest, 16))


@lru_cache(maxsize=8)
def _stamp(folder: Path) -> bytes:
    return hashlib.sha256(b"".join(path.read_bytes() for path in sorted(folder.glob("*.py")))).digest()


def _address(context: Any, builder: Any, kind: Any, array: Any, place: Any) -> Any:
    return builder.gep(context.make_array(kind)(context, builder, array).data, [place])


def _prefetch(_: Any, rows: Any, i: Any) -> Any:
    """Have the processor bring ``rows[i]`` to its second cache, without waiting for it. Only in compiled code."""

    def generate(context: Any, builder: Any, _: Any, values: Any) -> Any:
        address = builder.bitcast(_address(context, builder, rows, *values), ir.IntType(8).as_pointer())
        number = ir.IntType(32)
        signature = ir.FunctionType(ir.VoidType(), [address.type, number, number, number])
        llvm = builder.module.declare_intrinsic("llvm.prefetch", [address.type], signature)
        builder.call(llvm, [address, number(0), number(2), number(1)])  # to read, second cache, data
        return context.get_dummy_value()

    return types.void(rows, i), generate


prefetch = cast(Callable[[Any, Any], None], intrinsic(_prefetch))


def _scale(width: int) -> Any:
    """``target[j : j + width] = source[i : i + width] * factor`` in one step. Only in compiled code."""

    def scale(_: Any, source: Any, i: Any, factor: Any, target: Any, j: Any) -> Any:
        def generate(context: Any, builder: Any, _: Any, values: Any) -> Any:
            numbers, align = ir.VectorType(context.get_value_type(source.dtype), width), source.dtype.bitwidth // 8
            read = builder.bitcast(_address(context, builder, source, *values[:2]), numbers.as_pointer())
            written = builder.bitcast(_address(context, builder, target, *values[3:]), numbers.as_pointer())
            factors = ir.Constant(numbers, ir.Undefined)
            for place in range(width):
                factors = builder.insert_element(factors, values[2], ir.IntType(32)(place))
            builder.store(builder.fmul(builder.load(read, align=align), factors), written, align=align)
            return context.get_dummy_value()

        return types.void(source, i, factor, target, j), generate

    return intrinsic(scale)


_scale_8, _scale_4, _scale_2 = _scale(8), _scale(4), _scale(2)


@borrow
def scale_run(
    source: _Array, i: np.uint64, count: np.uint64, factor: np.floating[Any], target: _Array, j: np.uint64
) -> None:
    """``target[j : j + count] = source[i : i + count] * factor``, of one floating type, fast also for a few numbers.

    A loop would first find out, every time, whether it may take several numbers at once.
    """
    x, eight, four, two, one = np.uint64(0), np.uint64(8), np.uint64(4), np.uint64(2), np.uint64(1)
    while x + eight <= count:
        _scale_8(source, i + x, factor, target, j + x)
        x += eight
    if count & four:
        _scale_4(source, i + x, factor, target, j + x)
        x += four
    if count & two:
        _scale_2(source, i + x, factor, target, j + x)
        x += two
    if count & one:
        target[j + x] = source[i + x] * factor
