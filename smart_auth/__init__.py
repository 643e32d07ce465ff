"""SMART App Launch authorization server: users, clients, tokens and the access they give."""
