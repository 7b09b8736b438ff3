#Requires -Version 5.1

<#
.SYNOPSIS
    Checks, applies and reverts the socket buffers of Windows for ant-quic peers.

.DESCRIPTION
    Compares DefaultReceiveWindow and DefaultSendWindow of the AFD driver with settings.conf beside this script. A
    value that is larger is left alone. What was found is recorded before anything is changed, and put back by
    -Revert; a value that somebody has changed since stays, unless -Force is given. Windows reads the values when it
    starts.

    Exit codes: 0 fine, 1 something is to do or was kept, 3 not run as administrator.

.PARAMETER Check
    Compare only. This is what happens without any parameter.

.PARAMETER Apply
    Set what is missing or too small. Needs an administrator.

.PARAMETER Revert
    Put back what -Apply has found. Needs an administrator.

.PARAMETER Force
    With -Revert: also put back what somebody has changed since.

.PARAMETER RecordPath
    Where to keep what was found.

.EXAMPLE
    .\Set-AntQuicTuning.ps1 -Check

.EXAMPLE
    .\Set-AntQuicTuning.ps1 -Apply -WhatIf

.EXAMPLE
    .\Set-AntQuicTuning.ps1 -Revert
#>
[CmdletBinding(SupportsShouldProcess, DefaultParameterSetName = 'Check')]
param(
    [Parameter(ParameterSetName = 'Check')]
    [switch]$Check,

    [Parameter(Mandatory, ParameterSetName = 'Apply')]
    [switch]$Apply,

    [Parameter(Mandatory, ParameterSetName = 'Revert')]
    [switch]$Revert,

    [Parameter(ParameterSetName = 'Revert')]
    [switch]$Force,

    [Parameter()]
    [string]$RecordPath = (Join-Path -Path $env:ProgramData -ChildPath 'antquic-server\tuning.json')
)

Set-StrictMode -Version Latest
$ErrorActionPreference = 'Stop'

function Get-WantedValue {
    <#
    .SYNOPSIS
        Reads the names and values of settings.conf.
    #>
    [CmdletBinding()]
    [OutputType([hashtable])]
    param(
        [Parameter(Mandatory)]
        [string]$Path
    )

    $wanted = @{}
    foreach ($line in (Get-Content -LiteralPath $Path)) {
        if ($line -match '^([A-Za-z]+) = ([0-9]+)$') {
            $wanted[$Matches[1]] = [long]$Matches[2]
        }
    }
    return $wanted
}

function Get-CurrentValue {
    <#
    .SYNOPSIS
        Reads one value of the registry; -1 where there is none.
    #>
    [CmdletBinding()]
    [OutputType([long])]
    param(
        [Parameter(Mandatory)]
        [string]$Key,

        [Parameter(Mandatory)]
        [string]$Name
    )

    $property = Get-ItemProperty -LiteralPath $Key -Name $Name -ErrorAction SilentlyContinue
    if ($null -eq $property) {
        return [long]-1
    }
    return [long]$property.$Name
}

function Set-CurrentValue {
    <#
    .SYNOPSIS
        Writes one value of the registry, or removes it for -1.
    #>
    [CmdletBinding(SupportsShouldProcess)]
    param(
        [Parameter(Mandatory)]
        [string]$Key,

        [Parameter(Mandatory)]
        [string]$Name,

        [Parameter(Mandatory)]
        [long]$Value
    )

    if ($Value -lt 0) {
        if ($PSCmdlet.ShouldProcess("$Key\$Name", 'Remove')) {
            Remove-ItemProperty -LiteralPath $Key -Name $Name
        }
    }
    elseif ($PSCmdlet.ShouldProcess("$Key\$Name", "Set to $Value")) {
        New-ItemProperty -LiteralPath $Key -Name $Name -Value $Value -PropertyType DWord -Force | Out-Null
    }
}

function Get-TuningRecord {
    <#
    .SYNOPSIS
        Reads what was found and applied, by name; empty where nothing is recorded.
    #>
    [CmdletBinding()]
    [OutputType([hashtable])]
    param(
        [Parameter(Mandatory)]
        [string]$Path
    )

    $record = @{}
    if (Test-Path -LiteralPath $Path) {
        $content = Get-Content -LiteralPath $Path -Raw | ConvertFrom-Json
        foreach ($entry in @($content.settings)) {
            $record[$entry.name] = @{ Found = [long]$entry.found; Applied = [long]$entry.applied }
        }
    }
    return $record
}

function Set-TuningRecord {
    <#
    .SYNOPSIS
        Writes what was found and applied, or removes the file where nothing is left to put back.
    #>
    [CmdletBinding(SupportsShouldProcess)]
    param(
        [Parameter(Mandatory)]
        [string]$Path,

        [Parameter(Mandatory)]
        [AllowEmptyCollection()]
        [hashtable]$Record
    )

    if (-not $PSCmdlet.ShouldProcess($Path, 'Record what was found')) {
        return
    }
    if ($Record.Count -eq 0) {
        Remove-Item -LiteralPath $Path -ErrorAction SilentlyContinue
        return
    }
    $directory = Split-Path -Path $Path -Parent
    if (-not (Test-Path -LiteralPath $directory)) {
        New-Item -Path $directory -ItemType Directory | Out-Null
    }
    $settings = @(
        foreach ($name in $Record.Keys) {
            [ordered]@{ name = $name; found = $Record[$name].Found; applied = $Record[$name].Applied }
        }
    )
    $json = ConvertTo-Json -InputObject @{ version = 1; settings = $settings } -Depth 3
    Set-Content -LiteralPath "$Path.new" -Value $json -Encoding ASCII
    Move-Item -LiteralPath "$Path.new" -Destination $Path -Force
}

function Test-Administrator {
    <#
    .SYNOPSIS
        Tells whether this process may change the machine.
    #>
    [CmdletBinding()]
    [OutputType([bool])]
    param()

    $principal = [Security.Principal.WindowsPrincipal][Security.Principal.WindowsIdentity]::GetCurrent()
    return $principal.IsInRole([Security.Principal.WindowsBuiltInRole]::Administrator)
}

function ConvertTo-Row {
    <#
    .SYNOPSIS
        Makes one line of the table.
    #>
    [CmdletBinding()]
    [OutputType([pscustomobject])]
    param(
        [Parameter(Mandatory)]
        [string]$Name,

        [Parameter(Mandatory)]
        [long]$Now,

        [Parameter(Mandatory)]
        [long]$Wanted,

        [Parameter(Mandatory)]
        [string]$Verdict
    )

    $words = @($Now, $Wanted) | ForEach-Object -Process { if ($_ -lt 0) { 'none' } else { "$_" } }
    return [pscustomobject]@{ Setting = $Name; Now = $words[0]; Wanted = $words[1]; Verdict = $Verdict }
}

$key = 'HKLM:\SYSTEM\CurrentControlSet\Services\Afd\Parameters'
$wanted = Get-WantedValue -Path (Join-Path -Path $PSScriptRoot -ChildPath 'settings.conf')
$record = Get-TuningRecord -Path $RecordPath
$code = 0

if (($Apply -or $Revert) -and -not $WhatIfPreference -and -not (Test-Administrator)) {
    [Console]::Error.WriteLine('Set-AntQuicTuning: error: run it as administrator; -WhatIf needs no rights')
    exit 3
}

if ($Apply) {
    foreach ($name in ($wanted.Keys | Sort-Object)) {
        $now = Get-CurrentValue -Key $key -Name $name
        if ($now -ge $wanted[$name]) {
            ConvertTo-Row -Name $name -Now $now -Wanted $wanted[$name] -Verdict 'fine'
            continue
        }
        # The value found first stays, whatever is applied later; and it is written down before anything is changed.
        if (-not $record.ContainsKey($name)) {
            $record[$name] = @{ Found = $now; Applied = $wanted[$name] }
        }
        $record[$name].Applied = $wanted[$name]
        Set-TuningRecord -Path $RecordPath -Record $record
        Set-CurrentValue -Key $key -Name $name -Value $wanted[$name]
        ConvertTo-Row -Name $name -Now $now -Wanted $wanted[$name] -Verdict 'set: restart Windows'
    }
}
elseif ($Revert) {
    # Names that are not ours are left out: the record lies where others may have written.
    foreach ($name in @($record.Keys | Where-Object -FilterScript { $wanted.ContainsKey($_) } | Sort-Object)) {
        $now = Get-CurrentValue -Key $key -Name $name
        $found = $record[$name].Found
        if ($now -ne $found -and $now -ne $record[$name].Applied -and -not $Force) {
            $verdict = 'kept: changed by somebody since; -Force restores it'
            ConvertTo-Row -Name $name -Now $now -Wanted $found -Verdict $verdict
            $code = 1
            continue
        }
        if ($now -ne $found) {
            Set-CurrentValue -Key $key -Name $name -Value $found
        }
        $record.Remove($name)
        Set-TuningRecord -Path $RecordPath -Record $record
        ConvertTo-Row -Name $name -Now $now -Wanted $found -Verdict 'restored: restart Windows'
    }
}
elseif ($Check -or $PSCmdlet.ParameterSetName -eq 'Check') {
    foreach ($name in ($wanted.Keys | Sort-Object)) {
        $now = Get-CurrentValue -Key $key -Name $name
        $verdict = 'fine'
        if ($now -lt $wanted[$name]) {
            $verdict = 'to do'
            $code = 1
        }
        ConvertTo-Row -Name $name -Now $now -Wanted $wanted[$name] -Verdict $verdict
    }
}

exit $code
