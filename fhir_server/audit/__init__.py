"""The audit trail: who did what with whose data, as AuditEvents that nobody can change (decision 0020).

An event is a line in a file of the process that answers, written before the answer goes out; a worker makes
AuditEvents of the lines. https://profiles.ihe.net/ITI/BALP/
"""
