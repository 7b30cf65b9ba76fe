"""The intended differences from the recorded server, and the probes that are not run, each with its reason.

The pattern of a deviation must match the difference. A listed probe that does not differ fails.
"""

from tests.conformance.outcomes import REAL, Deviation
from tests.conformance.recording import load

_GRPC_TEXT = "gRPC itself makes this text, which depends on its version and language"
_POISONED = "the real server keeps a refused config and refuses all later ones for the same reason"
_BLOCKED = (
    "in the real server a half-written version blocks all other loads for minutes; here versions load independently"
)
_HANGS = "the real server waits forever for a new model without a version, and hangs every later reload"
_DEAD = "in the real server a failed version is dead until a restart; here it is loaded again once its files change"
_COMPLETED = "a completed version is served after the next poll of the disk, not at the next retry a minute later"
_DRAINS = "SIGTERM drains: calls in progress finish, new calls are refused, exit code 0"
_NO_EXAMPLES = "Classify, Regress and MultiInference are not offered: no model of bitsum has signatures for them"
_BROKEN_TEXT = (
    "the real server quotes bytes that are not UTF-8 in the error text, after which no client can read its status"
)
_ONE_LINE = "a failure is one line of bitsum, with exit code 1, 2 for a wrong flag, 3 for models that do not load"
_NO_MODEL = "the error says that saved_model.pb is damaged or missing, whatever the cause"
_RELATIVE = "a relative path is accepted, relative to the current folder"
_UNKNOWN_FLAG = "an unknown flag is refused, not ignored: it might be misspelled"
# The start of the error line of each failed start.
_ERRORS = {
    "start_no_args": "neither --model_base_path nor --model_config_file is given",
    "start_bad_config": "Invalid protobuf file: ",
    "start_missing_config": "cannot read the model config file ",
    "start_dup": (
        "Failed to start server. Error: INVALID_ARGUMENT: Illegal to list model m multiple times in config list"
    ),
    "start_label_unavailable": (
        "Failed to start server. Error: FAILED_PRECONDITION: Request to assign label to version 2 of model m, "
    ),
    "start_corrupt_retries0": "Failed to start server. Error: UNKNOWN: 1 servable.s. did not become available: ",
    "start_one_good_one_corrupt": "Failed to start server. Error: UNKNOWN: 1 servable.s. did not become available: ",
    "start_port_in_use": "cannot listen on ",
}
_ON_TO_2 = r"\[\[\[1, 'END', 0, ''\], \[2, 'AVAILABLE', 0, ''\]\], 'OK v2'\]"
_BACK_TO_1 = r"\[\[\[1, 'AVAILABLE', 0, ''\], \[2, 'END', 0, ''\]\], 'OK v1'\]"
_TYPE = r"ModelServerConfig::model_type \(deprecated\)"
_NEITHER = f"Illegal setting neither {_TYPE} nor ModelServerConfig::model_platform, model name is"
_BOTH = f"Illegal setting both {_TYPE} and ModelServerConfig::model_platform, model name is"

DEVIATIONS: dict[tuple[str, str], Deviation] = {
    **{
        ("1_basic", name): Deviation(_GRPC_TEXT, "expected UNIMPLEMENTED '', got UNIMPLEMENTED ", REAL, always=False)
        for name in ("unknown_method", "unknown_service", "session_service")
    },
    **{
        ("1_basic", name): Deviation(_GRPC_TEXT, "expected INTERNAL '', got INTERNAL ", REAL, always=False)
        for name in ("garbage_bytes", "garbage_truncated", "invalid_utf8_name")
    },
    **{
        ("2_reload", name): Deviation(_POISONED, f"expected INVALID_ARGUMENT '{_NEITHER} noplat', got {instead}$")
        for name, instead in {
            "reload_bad_platform": "INVALID_ARGUMENT 'Model badplat requests unsupported platform foo'",
            "reload_type_and_platform": f"INVALID_ARGUMENT '{_BOTH} add'",
            "reload_metrics": "OK ''",
            "reload_latest_0": "OK ''",
            "reload_change_base_path": "OK ''",
            "reload_empty_list": "OK ''",
        }.items()
    },
    ("3_reload_fresh", "reload_no_platform2_then_good"): Deviation(_POISONED, f"'{_NEITHER} noplat', got OK ''$"),
    ("2_reload", "reload_nonexistent_path"): Deviation(
        _HANGS, "got INVALID_ARGUMENT 'Could not find base path /.*/doesnotexist for servable bad"
    ),
    ("2_reload", "reload_nonexistent_path_next_reload"): Deviation(_HANGS, "got OK ''$"),
    ("2_reload", "reload_empty_dir"): Deviation(
        _HANGS, "got NOT_FOUND 'Unable to find a numerical version path for servable bad at: /.*/emptydir'$"
    ),
    ("2_reload", "reload_empty_dir_next_reload"): Deviation(_HANGS, "got OK ''$"),
    ("4_filesystem", "half_written_completed_retries0"): Deviation(_DEAD, rf"got {_ON_TO_2}$"),
    ("4_filesystem", "half_written_removed_readded"): Deviation(_DEAD, rf"got {_BACK_TO_1}; then .* got {_ON_TO_2}$"),
    ("4_filesystem", "truncated_pb_retries0"): Deviation(_NO_MODEL, r"got .*\[4, 'END', 15, .Can't parse /"),
    ("4_filesystem", "odd_names"): Deviation(_NO_MODEL, r"got .*\[9, 'END', 5, .Specified file path does not appear"),
    ("5_blocking", "half_written_blocks_other_model"): Deviation(
        _BLOCKED, r"got .*\[2, 'AVAILABLE', 0, ''\]\], 'OK v2'\]$"
    ),
    **{
        ("5_blocking", name): Deviation(
            _BLOCKED, r"got .*\[2, 'LOADING', 0, ''\], \[3, 'AVAILABLE', 0, ''\]\], 'OK v3'\]$"
        )
        for name in ("half_written_then_newer", "half_written_then_newer_removed")
    },
    ("6_hot_swap", "hot_swap_slow_copy"): Deviation(_COMPLETED, r"got \(\[2, 3\], \[\], 0\)$"),
    ("6_hot_swap", "hot_swap_slow_copy_states"): Deviation(
        _COMPLETED, r"got \[\[2, 'END', 0, ''\], \[3, 'AVAILABLE', 0, ''\]\]$"
    ),
    ("1_basic", "sigterm"): Deviation(_DRAINS, "got 0$"),
    ("7_warmup", "warmup_bad_proto"): Deviation(_BROKEN_TEXT, r"got .*\[2, 'END', 3, .Failed to parse warmup record"),
    **{("9_startup", name): Deviation(_ONE_LINE, rf"got \([123], .bitsum: {text}") for name, text in _ERRORS.items()},
    ("9_startup", "start_relative_base"): Deviation(_RELATIVE, r"got \(None, "),
    ("9_startup", "start_unknown_flag"): Deviation(_UNKNOWN_FLAG, r"got \(2, None\)$"),
    ("9_startup", "sigterm_during_call"): Deviation(_DRAINS, r"got \(0, 'OK'\)"),
    **{
        ("1_basic", name): Deviation(_NO_EXAMPLES, "got UNIMPLEMENTED ''$")
        for name in load()["1_basic"]
        if name.startswith(("classify_", "regress_", "mi_"))
    },
    ("13_misc", "concurrency_default_threads"): Deviation(
        _GRPC_TEXT, r"got \['OK', 'RESOURCE_EXHAUSTED.*'\]$", REAL, always=False
    ),
}

_NO_REST = "the embedded server speaks gRPC only"
_ONLY_LOG = "log lines, which are not an interface"

NOT_RUN: dict[tuple[str, str], str] = {
    **{("1_basic", name): _NO_REST for name in load()["1_basic"] if name.startswith("rest_")},
    **{
        (section, name): _ONLY_LOG
        for section, name in (
            ("2_reload", "A_log"),
            ("2_reload", "reload_nonexistent_path_log"),
            ("2_reload", "reload_empty_dir_log"),
            ("2_reload", "reload_specific_missing_log"),
            ("2_reload", "reload_specific_partly_missing_log"),
            ("8_while_loading", "E_log"),
        )
    },
    **{("12_classify_regress", name): _NO_EXAMPLES for name in load()["12_classify_regress"]},
    ("1_basic", "deadline_zero"): "the client's own clock ends the call, before or after the answer",
    ("11_sizes_health", "message_2GiB"): "needs 2 GiB of memory on each side",
}
