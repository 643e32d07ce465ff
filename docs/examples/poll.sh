#!/bin/sh
# Asks how a Subscription is doing, and for its events after the last number that you have. Needs curl.
#
#   FHIR_SERVER=https://radiology.example/fhir FHIR_TOKEN=... sh poll.sh SUBSCRIPTION-ID LAST-NUMBER

set -eu
curl -fsS -H "Authorization: Bearer $FHIR_TOKEN" "$FHIR_SERVER/Subscription/$1/\$status"
echo
curl -fsS -H "Authorization: Bearer $FHIR_TOKEN" "$FHIR_SERVER/Subscription/$1/\$events?eventsSinceNumber=$(($2 + 1))"
echo
