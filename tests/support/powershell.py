"""
What PSScriptAnalyzer's rules demand, as far as a grammar alone can tell; the analyser itself needs PowerShell.

Source: the rules' documentation, by the names used here. A complaint begins with the rule's name. Known to be
weaker than the analyser: types are not inferred, modules are not loaded (every command of the form Verb-Noun is
taken to exist), and a variable counts as read if it is read anywhere in the same function or at the top.
"""

import re
from collections.abc import Iterator

import tree_sitter_powershell
from tree_sitter import Language, Node, Parser

__all__ = ["complaints"]

_PARSER = Parser(Language(tree_sitter_powershell.language()))

_VERBS = frozenset(
    re.findall(
        r"\w+",
        """
        Add Clear Close Copy Enter Exit Find Format Get Hide Join Lock Move New Open Optimize Pop Push Redo Remove
        Rename Reset Resize Search Select Set Show Skip Split Step Switch Undo Unlock Watch Backup Checkpoint Compare
        Compress Convert ConvertFrom ConvertTo Dismount Edit Expand Export Group Import Initialize Limit Merge Mount
        Out Publish Restore Save Sync Unpublish Update Debug Measure Ping Repair Resolve Test Trace Connect Disconnect
        Read Receive Send Write Approve Assert Build Complete Confirm Deny Deploy Disable Enable Install Invoke
        Register Request Restart Resume Start Stop Submit Suspend Uninstall Unregister Wait Block Grant Protect Revoke
        Unblock Unprotect Use
        """,
    )
)
_CHANGING = frozenset(["New", "Set", "Remove", "Start", "Stop", "Restart", "Reset", "Update"])
_AUTOMATIC = frozenset(
    re.findall(r"\w+", "_ args error false home host input matches null pid psboundparameters pscmdlet psitem true")
)
_COMPARED_WITH_NULL = re.compile(r"-[ci]?(eq|ne)\s+\$null\s*$", re.IGNORECASE)
_READ_BY_THE_ENGINE = frozenset(["erroractionpreference"])


def complaints(source: bytes) -> list[str]:
    """Return what is wrong with a script, each as ``Rule: place: what``; empty if nothing is."""
    root = _PARSER.parse(source).root_node
    found = [*_text_rules(source), *_syntax(root)]
    if any(node.is_error or node.is_missing for node in _walk(root)):
        return found
    found += [*_command_rules(root), *_expression_rules(root), *_variable_rules(root)]
    for function in (node for node in _walk(root) if node.type == "function_statement"):
        found += _function_rules(function)
    if not re.match(rb"(?:#[^\n]*\n|\s)*<#\s*\.SYNOPSIS\s+[^#\s]", source):
        found.append("PSProvideCommentHelp: script: no comment-based help")
    return found


def _walk(node: Node) -> Iterator[Node]:
    yield node
    for child in node.children:
        yield from _walk(child)


def _text(node: Node) -> str:
    return (node.text or b"").decode()


def _place(node: Node) -> str:
    return f"line {node.start_point[0] + 1}"


def _text_rules(source: bytes) -> Iterator[str]:
    if not source.isascii():
        yield "PSUseBOMForUnicodeEncodedFile: file: not ASCII, and without a byte order mark"
    for number, line in enumerate(source.decode("latin-1").splitlines(), start=1):
        if line != line.rstrip():
            yield f"PSAvoidTrailingWhitespace: line {number}: blanks at the end"
        if "\t" in line or (len(line) - len(line.lstrip())) % 4:
            yield f"PSUseConsistentIndentation: line {number}: not in steps of four blanks"
        if len(line) > 120:
            yield f"PSAvoidLongLines: line {number}: {len(line)} characters"


def _syntax(root: Node) -> Iterator[str]:
    for node in _walk(root):
        if node.is_error or node.is_missing:
            yield f"ParseError: {_place(node)}: {_text(node)[:40]!r}"


def _command_rules(root: Node) -> Iterator[str]:
    for command in (node for node in _walk(root) if node.type == "command"):
        name = next((_text(node) for node in command.children if node.type == "command_name"), "")
        if re.fullmatch(r"Write-Host", name, re.IGNORECASE):
            yield f"PSAvoidUsingWriteHost: {_place(command)}: {name}"
        elif re.fullmatch(r"Invoke-Expression", name, re.IGNORECASE):
            yield f"PSAvoidUsingInvokeExpression: {_place(command)}: {name}"
        elif not re.fullmatch(r"[A-Z][A-Za-z]*-[A-Z][A-Za-z]*", name):
            yield f"PSAvoidUsingCmdletAliases: {_place(command)}: {name!r} is no Verb-Noun"
        elements = next((node for node in command.children if node.type == "command_elements"), None)
        previous = ""
        for element in () if elements is None else elements.named_children:
            if element.type not in ("command_parameter", "command_argument_sep", "redirection") and (
                previous != "command_parameter"
            ):
                yield f"PSAvoidUsingPositionalParameters: {_place(element)}: {_text(element)[:40]!r} of {name}"
            if element.type != "command_argument_sep":
                previous = element.type


def _expression_rules(root: Node) -> Iterator[str]:
    for node in _walk(root):
        if node.type == "comparison_expression" and re.search(
            r"-(c|i)?(eq|ne)\s+\$null\s*$", _text(node), re.IGNORECASE
        ):
            yield f"PSPossibleIncorrectComparisonWithNull: {_place(node)}: {_text(node)!r}"
        if node.type == "variable" and _text(node).lower().startswith("$global:"):
            yield f"PSAvoidGlobalVars: {_place(node)}: {_text(node)}"
        if node.type == "catch_clause" and re.search(r"\{\s*\}\s*$", _text(node)):
            yield f"PSAvoidUsingEmptyCatchBlock: {_place(node)}: empty"
        if node.type == "script_parameter" and re.search(r"\[switch\][^,]*=\s*\$true", _text(node), re.IGNORECASE):
            yield f"PSAvoidDefaultValueSwitchParameter: {_place(node)}: {_text(node)!r}"


def _names(node: Node, kind: str) -> list[str]:
    return [_text(one).removeprefix("$").lower() for one in _walk(node) if one.type == kind]


def _own(scope: Node) -> Iterator[Node]:
    """Nodes of a scope without those of the functions in it."""
    for child in scope.children:
        if child.type != "function_statement":
            yield child
            yield from _own(child)


def _variable_rules(root: Node) -> Iterator[str]:
    scopes = [root, *(node for node in _walk(root) if node.type == "function_statement")]
    for scope in scopes:
        nodes = list(_own(scope))
        assigned: list[tuple[Node, str]] = []
        written: set[int] = set()
        for node in nodes:
            target = node.children[0] if node.type == "left_assignment_expression" else None
            if target is not None and re.fullmatch(r"\$[A-Za-z]\w*", _text(node).strip()):
                name = _text(node).strip()[1:].lower()
                assigned.append((node, name))
                written |= {one.id for one in _walk(node)}
        declared = [
            (node, _text(one)[1:].lower())
            for node in nodes
            if node.type == "script_parameter"
            for one in node.children
            if one.type == "variable"
        ]
        written |= {one.id for node, _ in declared for one in node.children if one.type == "variable"}
        variables = [node for node in nodes if node.type == "variable" and node.id not in written]
        in_text = [re.findall(r"\$(\w+)", _text(node)) for node in nodes if "expandable" in node.type]
        read = {_text(node).removeprefix("$").lower() for node in variables}
        read |= {name.lower() for names in in_text for name in names}
        for node, name in assigned:
            if name in _AUTOMATIC:
                yield f"PSAvoidAssignmentToAutomaticVariable: {_place(node)}: ${name}"
            elif name not in read and name not in _READ_BY_THE_ENGINE:
                yield f"PSUseDeclaredVarsMoreThanAssignments: {_place(node)}: ${name}"
        for node, name in declared:
            if name not in read:
                yield f"PSReviewUnusedParameter: {_place(node)}: ${name}"


def _function_rules(function: Node) -> Iterator[str]:
    name = next(_text(node) for node in function.children if node.type == "function_name")
    place, text = _place(function), _text(function)
    verb, _, noun = name.partition("-")
    if verb not in _VERBS or not noun:
        yield f"PSUseApprovedVerbs: {place}: {name}"
    if re.search(r"[^s]s$", noun):
        yield f"PSUseSingularNouns: {place}: {name}"
    declares = re.search(r"\[CmdletBinding\([^)]*SupportsShouldProcess", text) is not None
    asks = "$PSCmdlet.ShouldProcess(" in text
    if verb in _CHANGING and not declares:
        yield f"PSUseShouldProcessForStateChangingFunctions: {place}: {name}"
    if declares != asks:
        yield f"PSShouldProcess: {place}: {name} {'declares' if declares else 'calls'} it only"
    if not re.search(r"<#\s*\.SYNOPSIS\s+[^#\s]", text):
        yield f"PSProvideCommentHelp: {place}: {name}"
    if re.search(r"\breturn[ \t]+\S", text) and "[OutputType(" not in text:
        yield f"PSUseOutputTypeCorrectly: {place}: {name}"
