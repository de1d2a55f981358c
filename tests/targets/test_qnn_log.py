"""Reasons are read out of QNN's verbose log."""

from onnxslim_bert.targets.qnn import qnn_reasons

LOG = """\
2026-01-01 [V:onnxruntime:, qnn_execution_provider.cc:1713 LogNodeSupport] Validation PASSED for 1 nodes in OrtNodeUnit (Add) :
\tOperator type: Add Node name: fine Node index: 1

\x1b[0;93m2026-01-01 [W:onnxruntime:, qnn_model_wrapper.cc:565 CreateQnnNode] QNN.backendValidateOpConfig() failed with 3110
\x1b[m
2026-01-01 [V:onnxruntime:, qnn_execution_provider.cc:1713 LogNodeSupport] Validation FAILED for 1 nodes in OrtNodeUnit (Cast) :
\tOperator type: Cast Node name: mask/cast Node index: 2
\tREASON : Failed to create Cast node.

2026-01-01 [V:onnxruntime:, qnn_execution_provider.cc:1713 LogNodeSupport] Validation FAILED for 2 nodes in OrtNodeUnit (If) :
\tOperator type: If Node name: branch Node index: 3
\tOperator type: DequantizeLinear Node name: branch/dq Node index: 4
\tREASON : Operators of type `If` are not supported by QNN EP.If node `branch` will not be assigned to QNN EP.
"""  # noqa: E501


def test_every_node_of_a_unit_gets_its_reason():
    """The backend's words follow the provider's, for the node that they were said of only."""
    by_node, overall = qnn_reasons(LOG)
    assert by_node == {
        "mask/cast": "Failed to create Cast node. QNN.backendValidateOpConfig() failed with 3110",
        "branch": "Operators of type `If` are not supported by QNN EP.",
        "branch/dq": "Operators of type `If` are not supported by QNN EP.",
    }
    assert overall == ""


def test_a_provider_that_fails_says_so_once_for_all():
    """As an error of its GetCapability, or else a warning."""
    log = "\x1b[1;31m2026-01-01 [E:onnxruntime:, qnn_execution_provider.cc:2290 GetCapabilityImpl] no device\x1b[m\n"
    warning = "2026-01-01 [W:onnxruntime:, qnn_execution_provider.cc:2433 GetCapabilityImpl] one node alone\n"
    assert qnn_reasons(warning) == ({}, "one node alone")
    assert qnn_reasons(warning + log) == ({}, "no device")


def test_a_log_without_refusals_gives_no_reason():
    """Empty too."""
    assert qnn_reasons("") == ({}, "")
