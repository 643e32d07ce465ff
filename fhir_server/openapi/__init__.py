"""The API described as OpenAPI 3.1, made from what is registered as the CapabilityStatement is.
https://spec.openapis.org/oas/v3.1.1.html
"""

from fhir_server.openapi.description import describe
from fhir_server.openapi.routes import create_blueprint

__all__ = ["create_blueprint", "describe"]
