"""Stored resources indexed anew, online: for new search parameters, after an upgrade, or when asked to.

Each current version names what it was indexed by (`Added.layout`). A worker (`worker`) brings those that name
something else to what is wanted now, bit by bit, and notes how far it came (`state`); `parameters` gives every
process the set of parameters that are wanted, and of those that are ready.
"""
