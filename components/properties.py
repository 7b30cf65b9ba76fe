"""The names of custom properties in ML Metadata and of files in artifacts, for the steps that write them and the
commands that read them."""

# Of a ModelBlessing or InfraBlessing; TFX's resolver of blessed models reads these.
BLESSED = "blessed"
CURRENT_MODEL = "current_model"
CURRENT_MODEL_ID = "current_model_id"
HAS_MODEL = "has_model"

# Why a blessing was withheld; empty if it was granted.
REASON = "reason"

# Of the Prover's blessing.
PROVEN = "proven"
EVALUATED = "evaluated"
REQUIRED = "required"
MARGIN = "margin"
BASELINE_MARGIN = "baseline_margin"
# Whether the margin is close enough to the baseline's.
MARGIN_KEPT = "margin_kept"

# Of Examples and blessings: the span of the run that made them; of a window: its spans, newest first.
SPAN = "span"
SPANS = "spans"
# Of Examples: the date that the span was given as, if it was.
SPAN_DATE = "span_date"
# Of imported Examples: what the import ignored or warned of, one per line.
NOTES = "notes"
# Of Examples: the rules by which they were split.
SPLITS_KEY = "splits_key"

# Of a DataBlessing: the artifacts that were blessed.
EXAMPLES_ID = "examples_id"
STATISTICS_ID = "statistics_id"

# Of a PushedModel.
PUSHED = "pushed"
IS_NEW = "is_new"
VERSION = "pushed_version"
DESTINATION = "pushed_destination"

# Of an execution that failed because its gate refused, not because of the machine.
REFUSED_BECAUSE = "refused_because"

# Files in anomaly artifacts.
ANOMALIES_FILE = "anomalies.json"
SCHEMA_DIFF_FILE = "SchemaDiff.pb"
