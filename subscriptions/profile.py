"""Names of the Subscriptions R5 Backport guide for R4. https://hl7.org/fhir/uv/subscriptions-backport/"""

from conformance import CANONICAL

BACKPORT = "http://hl7.org/fhir/uv/subscriptions-backport"
SUBSCRIPTION_PROFILE = f"{BACKPORT}/StructureDefinition/backport-subscription"
STATUS_PROFILE = f"{BACKPORT}/StructureDefinition/backport-subscription-status-r4"
FILTER_CRITERIA = f"{BACKPORT}/StructureDefinition/backport-filter-criteria"
PAYLOAD_CONTENT = f"{BACKPORT}/StructureDefinition/backport-payload-content"
HEARTBEAT_PERIOD = f"{BACKPORT}/StructureDefinition/backport-heartbeat-period"
TIMEOUT = f"{BACKPORT}/StructureDefinition/backport-timeout"
MAX_COUNT = f"{BACKPORT}/StructureDefinition/backport-max-count"
CHANNEL_SYSTEM = f"{CANONICAL}/CodeSystem/subscription-channel"  # of channels that R4 has no code for
CHANNEL_TYPE = f"{BACKPORT}/StructureDefinition/backport-channel-type"
TOPIC_VERSION = "1.0.0"  # of all topics, as they are defined now
TOPIC_CANONICAL = f"{BACKPORT}/StructureDefinition/capabilitystatement-subscriptiontopic-canonical"
SERVER_CAPABILITIES = f"{BACKPORT}/CapabilityStatement/backport-subscription-server-r4"

STATUS_OPERATION = f"{BACKPORT}/OperationDefinition/backport-subscription-status"
EVENTS_OPERATION = f"{BACKPORT}/OperationDefinition/backport-subscription-events"
TOKEN_OPERATION = f"{BACKPORT}/OperationDefinition/backport-subscription-get-ws-binding-token"

# Extensions that would say in R5's words what the guide says in its own; just the identifier has no other place.
R5 = "http://hl7.org/fhir/5.0/"
R5_IDENTIFIER = "http://hl7.org/fhir/5.0/StructureDefinition/extension-Subscription.identifier"

ERROR_SYSTEM = "http://terminology.hl7.org/CodeSystem/subscription-error"
