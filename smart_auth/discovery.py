"""What clients read first: SMART configuration and OpenID configuration. Lists only what works."""

from smart_auth import brand
from smart_auth.assertion import ALGORITHMS
from smart_auth.keys import ALGORITHM
from smart_auth.registration import OFF
from smart_auth.registration_routes import PATH as REGISTER
from smart_auth.scopes import WORDS
from smart_auth.service import AuthService

CAPABILITIES = (
    "launch-ehr",
    "launch-standalone",
    "authorize-post",
    "client-public",
    "client-confidential-symmetric",
    "client-confidential-asymmetric",
    "sso-openid-connect",
    "context-banner",
    "context-style",
    "context-ehr-patient",
    "context-ehr-encounter",
    "context-standalone-patient",
    "permission-offline",
    "permission-online",
    "permission-patient",
    "permission-user",
    "permission-v1",
    "permission-v2",
)
# Draft 0.1.0 of SMART Imaging Access: the token for ImagingStudy opens its images, for apps and for systems.
_IMAGING = "http://fhir.org/argonaut/smart-imaging/capabilities"
IMAGING_ACCESS = ("smart-imaging-access", f"{_IMAGING}/app-launch", f"{_IMAGING}/backend-services")


def smart_configuration(service: AuthService) -> dict:
    """`[base]/.well-known/smart-configuration`. https://hl7.org/fhir/smart-app-launch/conformance.html"""
    registers = {"registration_endpoint": f"{service.origin}{REGISTER}"} if service.registration != OFF else {}
    return registers | {
        "issuer": service.fhir_base,
        "jwks_uri": f"{service.origin}/auth/jwks",
        "authorization_endpoint": f"{service.origin}/auth/authorize",
        "token_endpoint": service.token_endpoint,
        "introspection_endpoint": f"{service.origin}/auth/introspect",
        "revocation_endpoint": f"{service.origin}/auth/revoke",
        "management_endpoint": f"{service.origin}/auth/apps",
        "grant_types_supported": ["authorization_code", "refresh_token", "client_credentials"],
        "response_types_supported": ["code"],
        "scopes_supported": [*WORDS, "user/*.cruds", "patient/*.cruds", "system/*.cruds"],
        "token_endpoint_auth_methods_supported": ["client_secret_basic", "private_key_jwt"],
        "token_endpoint_auth_signing_alg_values_supported": list(ALGORITHMS),
        "code_challenge_methods_supported": ["S256"],
        "user_access_brand_bundle": brand.address(service),
        "user_access_brand_identifier": brand.identifier(service),
        "capabilities": [*CAPABILITIES, *(IMAGING_ACCESS if service.imaging_access else ())],
    }


def openid_configuration(service: AuthService) -> dict:
    """`[issuer]/.well-known/openid-configuration`. https://openid.net/specs/openid-connect-discovery-1_0.html"""
    return smart_configuration(service) | {
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": [ALGORITHM],
    }


def oauth_uris(service: AuthService) -> dict[str, str]:
    """The addresses that the CapabilityStatement repeats in its oauth-uris extension."""
    configuration = smart_configuration(service)
    names = {"authorize": "authorization", "token": "token", "introspect": "introspection", "revoke": "revocation"}
    if service.registration != OFF:
        names["register"] = "registration"
    return {short: configuration[f"{name}_endpoint"] for short, name in names.items()}
