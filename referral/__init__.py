"""The practice's rules: the states of a referral, scheduling, no-shows, escalation."""
