"""Kernels: what follows a convolution, and its derivatives, in torch's operators or compiled for this processor."""

from fewshot_nsl.kernels.build import build_native, compiler
from fewshot_nsl.kernels.choose import choose_native
from fewshot_nsl.kernels.kernels import Dense, Kernels
from fewshot_nsl.kernels.native import NativeKernels
from fewshot_nsl.kernels.plain import PlainKernels

__all__ = ["Dense", "Kernels", "NativeKernels", "PlainKernels", "build_native", "choose_native", "compiler"]
