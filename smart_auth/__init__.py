"""SMART App Launch authorization server: users, clients, tokens and the access they give.

From below: `models` (typed values), `store` and `credentials` (MongoDB; the only modules that know it), `scopes` and
`access` (what a scope means, and what a user or a client may see), `passwords`, `keys`, `jwks`, `tokens`, `users`,
`clients`, `sessions` (plain functions and parts), `second_factor`, `passkeys`, `new_password`, `registration` (what
people and programs do by themselves), `grants` (authlib's grant types with our rules), `server` (authlib's server),
`service` (all parts, made once), `pages`, `routes` and `guard` (Flask).
"""
