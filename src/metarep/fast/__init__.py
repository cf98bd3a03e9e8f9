"""The same results, sooner: C code, Triton kernels, CUDA graphs and derivatives of Conv4 that are written out.

Every function here has a slower twin outside of this folder, and gives the same but for rounding. Only
:mod:`metarep.machine.faster` imports it. The folder may be deleted.
"""
