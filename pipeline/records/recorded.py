"""The names under which the steps write what they found into the metadata store.

They are the steps' own, written down here once more: the steps' modules need TFX, those that read need not.
"""

BLESSED = "blessed"
REASON = "reason"

# Of an execution that failed because its gate refused, and not because of the machine.
REFUSED_BECAUSE = "refused_because"

# Of the Prover's blessing.
PROVEN = "proven"
REQUIRED = "required"
MARGIN = "margin"
BASELINE_MARGIN = "baseline_margin"

# Of what the Pusher puts out.
PUSHED = "pushed"
IS_NEW = "is_new"
VERSION = "pushed_version"
DESTINATION = "pushed_destination"

# Files in artifacts.
ANOMALIES_FILE = "anomalies.json"
SCHEMA_FILE = "schema.pbtxt"
SCHEMA_DIFF_FILE = "SchemaDiff.pb"
REPORT_FILE = "report.json"
