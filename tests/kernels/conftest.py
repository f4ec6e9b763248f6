"""Both kinds of kernels."""

import pytest

from fewshot_nsl.kernels import Kernels, NativeKernels, PlainKernels, build_native, compiler

NATIVE = pytest.param("native", marks=pytest.mark.skipif(compiler() is None, reason="there is no C++ compiler"))


@pytest.fixture(params=["plain", NATIVE])
def kernels(request: pytest.FixtureRequest) -> Kernels:
    return NativeKernels(build_native()) if request.param == "native" else PlainKernels()
