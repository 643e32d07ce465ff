"""Finding, holding and booking a time: `Appointment/$find`, `$hold` and `$book` of IHE Scheduling.
https://profiles.ihe.net/ITI/Scheduling/
"""
