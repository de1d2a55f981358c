"""What ONNX Runtime and onnx say of a graph, as one clause of ours: which node, and what is wrong there."""

import re

from onnxslim_bert.errors import one_line

NO_ARGUMENT = "it takes no such argument"
UNREADABLE = "it is cut off or damaged"

_DROPPED = re.compile(
    r"(?:\bonnxruntime\.[\w.]+: )?\[ONNXRuntimeError\] : \d+ : \w+ : "  # a code and its name
    r"|Load model from .*? failed:|Failed to load model with error: |Exception during initialization: "
    r"|This is an invalid model\. |Invalid model\. |\bType Error: |\bError: |Fatal error: |\bInference error\(s\): "
    r"|\[(?:Shape|Type)InferenceError\] |Error Node(?:\(.*?\))? with schema\(.*?\) |(?<=: )Error "
    r"| Please fix either the inputs/outputs or the model\.|Exception from \S+ ?"
)
_NODES = (  # how a node is named, with its operator
    re.compile(r"Non-zero status code returned while running (?P<op>\S+) node\. Name:'(?P<name>.*?)' Status Message: "),
    re.compile(r'In Node, \("(?P<name>.*?)", (?P<op>\w+), ".*?", -?\d+\) : \(.*?\) -> \(.*?\) , '),
    re.compile(r"Node \((?P<name>.*?)\) Op \((?P<op>\w+)\) "),
    re.compile(r"\(op_type:(?P<op>\w+)(?:, node name: (?P<name>.*?))?\): "),
    re.compile(r"^(?P<said>.*?) ==> Context: Bad node spec for node\. Name: (?P<name>.*?) OpType: (?P<op>\w+).*"),
)
_PLACE = re.compile(r"(?:\S*[\\/])?\w+\.(?:cc|cpp|cu|h|hpp|inc|inl):\d+:? ")  # a line of its source
_SIGNATURE = re.compile(r"[^(]*?[^\s(]*::[^\s(]*\(")  # of the C++ function there, up to its arguments
_WITH = re.compile(r"(?: const| volatile| noexcept| \[with .*?\](?= |$))+")
_CONDITION = re.compile(r"(?P<found>[^.]*?) was false\.? ?|Assertion `(?P<asserted>.*?)` failed:? ?")


def in_words(error: BaseException | str) -> str:
    """What an error of ONNX Runtime or onnx says, in one printable clause without their codes, places and signatures.

    Example: "[ONNXRuntimeError] : 1 : FAIL : Non-zero status code returned while running Add node. Name:'a' Status
    Message: /onnxruntime_src/onnxruntime/core/x.h:5 void onnxruntime::A::B(int) n == 1 was false. Attempting to
    broadcast 5 by 20" is "Add node 'a': Attempting to broadcast 5 by 20". What others say stays, in one line.
    """
    # of a file whose name is not UTF-8 it fails to raise what it meant to
    meant = error.object.decode(errors="replace") if isinstance(error, UnicodeDecodeError) else str(error)
    text = " ".join(meant.split())
    if "arguments. The following argument types are supported" in text:
        return NO_ARGUMENT
    if "Protobuf parsing failed" in text or "Error parsing message" in text:
        return UNREADABLE
    for node in _NODES:
        text = node.sub(_named, text)
    text = _without_places(_DROPPED.sub("", text))
    return one_line(text.strip().removesuffix(".")) or type(error).__name__


def _named(found: re.Match[str]) -> str:
    said = found.groupdict()
    return f"{said['op']} node{' ' + repr(said['name']) if said['name'] else ''}: {said.get('said', '')}"


def _without_places(text: str) -> str:
    """The text without lines of source, the functions there, and the conditions that say less than what follows."""
    while place := _PLACE.search(text):
        rest = _behind_function(text[place.end() :])
        condition = _CONDITION.match(rest)
        if condition is not None:
            rest = rest[condition.end() :] or f"it needs {condition['found'] or condition['asserted']}"
        text = f"{text[: place.start()]} {rest}"
    return text


def _behind_function(text: str) -> str:
    """What follows the C++ function, written as its name or as its whole signature, with which the text begins."""
    signature = _SIGNATURE.match(text)
    if signature is None:
        return text.partition(" ")[2]
    depth = 0
    for place in range(signature.end() - 1, len(text)):
        depth += {"(": 1, ")": -1}.get(text[place], 0)
        if not depth and text[place] == ")" and text[place + 1 : place + 2] in ("", " "):
            rest = text[place + 1 :]
            more = _WITH.match(rest)
            return rest[more.end() if more else 0 :].lstrip()
    return ""
