"""`radloop demo`: the outside world of one practice, played through public interfaces only.

An EHR, a SMART app, a front desk, a modality and a radiologist take two referrals through a running server:
one whose patient comes, one whose patient does not. Every step is printed as it happens; one that fails ends
the play with its reason.
"""
