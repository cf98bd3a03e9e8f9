"""The same results, computed faster: C code, Triton kernels, CUDA graphs, and formulas for Conv4's derivatives.

Every function here has a slower equivalent outside of this folder, with the same result but for rounding. Only
:mod:`metarep.machine.faster` imports this folder. It may be deleted.
"""
