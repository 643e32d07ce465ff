"""The operations of the FHIR specification that this server offers. https://hl7.org/fhir/R4/operationslist.html"""
