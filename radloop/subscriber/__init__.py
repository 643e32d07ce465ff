"""A subscriber's program: a client of the public FHIR API and of the websocket, and of nothing else."""
