"""Our client role: other authorization servers say who somebody is.

An *OpenID provider* logs users in (`/auth/outside/<name>`); an *EHR* launches our tracker (`/tracker/launch`). Which
ones is written by the practice's administrator in one file; nobody else makes us call anywhere.
"""
