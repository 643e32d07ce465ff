"""Bulk data: `$export` and `$import` as jobs of a worker. https://hl7.org/fhir/uv/bulkdata/STU2/export.html

A request becomes a job in MongoDB (`jobs`) with a folder of files (`files`). A worker (`worker`) does it bit by bit
and notes after each bit how far it came, so that another one can go on after a crash; the files are given out to
whoever asked for them (`routes`), for a day.
"""
