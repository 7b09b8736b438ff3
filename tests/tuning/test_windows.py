"""
What can be shown of the Windows files without Windows.

The registry files are parsed by the editor's rules, the script by PowerShell's grammar and by those rules of its
analyser that a grammar can decide. Nothing here runs the script: that it does what it says on a Windows is not shown.
"""

import re
from pathlib import Path

import pytest

from antquic_server.tuning.catalogue import load_topic
from antquic_server.tuning.places import tuning_directory
from antquic_server.tuning.rules import RuleKind
from support.powershell import complaints

DIRECTORY = tuning_directory() / "windows"
SCRIPT = DIRECTORY / "Set-AntQuicTuning.ps1"
SETTINGS = {setting.key: setting for setting in load_topic(DIRECTORY / "settings.conf").settings}
KEY = r"HKEY_LOCAL_MACHINE\SYSTEM\CurrentControlSet\Services\Afd\Parameters"


def parse_registry_file(path: Path) -> dict[str, dict[str, int | None]]:
    """
    Return values by key; None for one that is removed.

    REGEDIT4: the name of the format, an empty line, then keys in brackets and values; comments begin with a
    semicolon; lines end with CR LF; text is ANSI, here ASCII.
    """
    content = path.read_bytes()
    assert content.isascii(), path
    assert content.count(b"\n") == content.count(b"\r\n") == content.count(b"\r"), path
    assert content.endswith(b"\r\n"), path
    lines = content.decode("ascii").split("\r\n")
    assert lines[:2] == ["REGEDIT4", ""], path
    keys: dict[str, dict[str, int | None]] = {}
    key = ""
    for line in lines[2:]:
        if match := re.fullmatch(r"\[(HKEY_[A-Z_]+(?:\\[^\\\]]+)+)\]", line):
            key = match[1]
            keys[key] = {}
        elif match := re.fullmatch(r'"([^"]+)"=(?:dword:([0-9a-f]{8})|(-))', line):
            keys[key][match[1]] = None if match[3] else int(match[2], 16)
        else:
            assert line == "" or line.startswith("; "), line
    return keys


def test_apply_sets_what_the_settings_file_says() -> None:
    """Both values, under the one key."""
    assert parse_registry_file(DIRECTORY / "apply.reg") == {KEY: {key: int(one.value) for key, one in SETTINGS.items()}}


def test_undo_removes_what_apply_sets() -> None:
    """And nothing else."""
    assert parse_registry_file(DIRECTORY / "undo.reg") == {KEY: dict.fromkeys(SETTINGS)}


def test_the_line_ends_survive_a_checkout() -> None:
    """Git is told to leave them alone."""
    attributes = (DIRECTORY.parents[1] / ".gitattributes").read_text()

    assert "*.reg -text" in attributes.splitlines()


def test_the_settings_are_those_the_guide_names() -> None:
    """AFD's two windows, as numbers that fit a DWORD, which the script compares as at least."""
    assert set(SETTINGS) == {"DefaultReceiveWindow", "DefaultSendWindow"}
    for setting in SETTINGS.values():
        assert setting.rule.kind is RuleKind.AT_LEAST
        assert 0 < int(setting.value) < 1 << 31


def test_the_script_reads_the_settings_file_by_the_same_rules() -> None:
    """Its pattern finds every setting of the file and nothing else, under the same key as the registry files."""
    source = SCRIPT.read_text()
    (pattern,) = re.findall(r"\$line -match '([^']+)'", source)
    found = {}
    for line in (DIRECTORY / "settings.conf").read_text().splitlines():
        match = re.search(pattern, line)
        if match is not None:
            found[match[1]] = match[2]

    assert found == {key: setting.value for key, setting in SETTINGS.items()}
    assert KEY.replace("HKEY_LOCAL_MACHINE", "HKLM:") in source


def test_the_analysers_rules_have_no_complaint() -> None:
    """Those that need no PowerShell."""
    assert complaints(SCRIPT.read_bytes()) == []


def test_every_parameter_is_explained_and_every_action_has_an_example() -> None:
    """In the comment-based help, which Get-Help shows."""
    source = SCRIPT.read_text()
    head = source[: source.index("Set-StrictMode")]
    parameters = re.findall(r"^    \[(?:switch|string)\]\$(\w+)", head, re.MULTILINE)

    assert parameters == ["Check", "Apply", "Revert", "Force", "RecordPath"]
    assert re.findall(r"\.PARAMETER (\w+)", head) == parameters
    for action in ("-Check", "-Apply -WhatIf", "-Revert"):
        assert f".\\{SCRIPT.name} {action}" in head


GOOD = """<#
.SYNOPSIS
    Does nothing.
#>
function Get-Thing {
    <#
    .SYNOPSIS
        Returns a thing.
    #>
    [OutputType([int])]
    param(
        [int]$Number
    )

    return $Number
}
Get-Thing -Number 1
"""


def test_the_rules_accept_what_is_right() -> None:
    """Otherwise the next test would prove nothing."""
    assert complaints(GOOD.encode()) == []


@pytest.mark.parametrize(
    ("rule", "old", "new"),
    [
        ("ParseError", "return $Number\n}", "return $Number\n"),
        ("PSAvoidTrailingWhitespace", "-Number 1\n", "-Number 1 \n"),
        ("PSUseConsistentIndentation", "    return", "   return"),
        ("PSUseBOMForUnicodeEncodedFile", "a thing", "a \u00fcber thing"),
        ("PSAvoidLongLines", "Returns a", "Returns a" + " long" * 25),
        ("PSUseApprovedVerbs", "Get-Thing", "Fetch-Thing"),
        ("PSUseSingularNouns", "Get-Thing", "Get-Things"),
        ("PSUseShouldProcessForStateChangingFunctions", "Get-Thing", "Set-Thing"),
        ("PSShouldProcess", "    [OutputType", "    [CmdletBinding(SupportsShouldProcess)]\n    [OutputType"),
        ("PSProvideCommentHelp", "        Returns a thing.", "        "),
        ("PSProvideCommentHelp", "<#\n.SYNOPSIS\n    Does nothing.\n#>\n", ""),
        ("PSUseOutputTypeCorrectly", "    [OutputType([int])]\n", ""),
        ("PSAvoidUsingWriteHost", "Get-Thing -Number 1", "Write-Host -Object 1"),
        ("PSAvoidUsingInvokeExpression", "Get-Thing -Number 1", "Invoke-Expression -Command 'x'"),
        ("PSAvoidUsingCmdletAliases", "Get-Thing -Number 1", "gci -Path ."),
        ("PSAvoidUsingPositionalParameters", "Get-Thing -Number 1", "Get-Thing 1"),
        ("PSUseDeclaredVarsMoreThanAssignments", "    return", "    $unused = 1\n    return"),
        ("PSAvoidAssignmentToAutomaticVariable", "    return", "    $input = 1\n    return"),
        ("PSReviewUnusedParameter", "return $Number", "return 1"),
        ("PSPossibleIncorrectComparisonWithNull", "return $Number", "return $Number -eq $null"),
        ("PSAvoidGlobalVars", "return $Number", "return $global:Number + $Number"),
        ("PSAvoidUsingEmptyCatchBlock", "Get-Thing -Number 1", "try { Get-Thing -Number 1 } catch { }"),
        ("PSAvoidDefaultValueSwitchParameter", "[int]$Number", "[switch]$Number = $true"),
    ],
)
def test_each_rule_finds_what_it_is_for(rule: str, old: str, new: str) -> None:
    """A script with one mistake gets that complaint."""
    assert GOOD.count(old) > 0
    found = complaints(GOOD.replace(old, new).encode())

    assert [complaint for complaint in found if complaint.startswith(f"{rule}:")], found
