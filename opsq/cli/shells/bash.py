"""The script for bash. For 3.2 and newer, without the package bash-completion."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence

from opsq.cli.shells.tree import Node

_HEAD = """\
# Completion of opsq for bash. Made by `opsq completion bash`. To have it:
#   eval "$(opsq completion bash)"      in ~/.bashrc

"""
_TAIL = """\

_opsq_complete() {
    local word kind path="" before="" skip="" at=0 place=1
    local current="${COMP_WORDS[COMP_CWORD]}"
    COMPREPLY=()
    while [ "$place" -lt "$COMP_CWORD" ]; do
        word="${COMP_WORDS[place]}"
        place=$((place + 1))
        if [ -n "$skip" ]; then
            if [ "$word" != "=" ]; then skip=""; before=""; fi
            continue
        fi
        case "$word" in
            -*) if _opsq_value "$path" "$word" >/dev/null; then skip=1; before="$word"; fi ;;
            *) case " $(_opsq_below "$path") " in
                *" $word "*) path="${path:+$path }$word"; at=0 ;;
                *) at=$((at + 1)) ;;
               esac ;;
        esac
    done
    if [ "$current" = "=" ]; then current=""; fi
    if [ -n "$skip" ]; then
        kind="$(_opsq_value "$path" "$before")"
    elif [ "${current#-}" != "$current" ]; then
        kind="=$(_opsq_flags "$path")"
    elif [ -n "$(_opsq_below "$path")" ]; then
        kind="=$(_opsq_below "$path")"
    else
        kind="$(_opsq_argument "$path" "$at")"
    fi
    local IFS=$' \\t\\n'
    case "$kind" in
        =*) COMPREPLY=($(compgen -W "${kind#=}" -- "$current")) ;;
        files) COMPREPLY=($(compgen -f -- "$current")) ;;
        "") ;;
        *)  local list="" last="$current" words
            words="$("${COMP_WORDS[0]}" completion --words "$kind" 2>/dev/null)"
            case "$current" in *,*) list="${current%,*},"; last="${current##*,}" ;; esac
            COMPREPLY=($(compgen -P "$list" -W "$words" -- "$last")) ;;
    esac
}
complete -o bashdefault -F _opsq_complete opsq
"""


def script(nodes: Sequence[Node]) -> str:
    """The whole script."""
    below = [(_key(node.path), " ".join(node.below)) for node in nodes if node.below]
    flags = [(_key(node.path), " ".join(name for flag in node.flags for name in flag.names)) for node in nodes]
    return (
        _HEAD
        + "\n".join(
            (
                _function("_opsq_below", '"$1"', below),
                _function("_opsq_flags", '"$1"', flags),
                _function("_opsq_value", '"$1|$2"', _values(nodes), "return 1"),
                _function("_opsq_argument", '"$1|$2"', _arguments(nodes)),
            )
        )
        + _TAIL
    )


def _values(nodes: Sequence[Node]) -> Iterable[tuple[str, str]]:
    shared = {flag for node in nodes for flag in node.flags if flag.shared and flag.value is not None}
    for node in nodes:
        for flag in node.flags:
            if flag.value is not None and not flag.shared:
                yield "|".join(_key(f"{node.path}|{name}") for name in flag.names), flag.value
    for flag in sorted(shared, key=lambda flag: flag.names):
        yield "|".join(f"*{_key(f'|{name}')}" for name in flag.names), str(flag.value)


def _arguments(nodes: Sequence[Node]) -> Iterable[tuple[str, str]]:
    for node in nodes:
        for at, kind in enumerate(node.arguments):
            if kind:
                last = at == len(node.arguments) - 1
                yield (f"{_key(f'{node.path}|')}*" if last else _key(f"{node.path}|{at}")), kind


def _key(text: str) -> str:
    return f'"{text}"'


def _function(name: str, over: str, cases: Iterable[tuple[str, str]], otherwise: str = "") -> str:
    lines = [f"        {pattern}) echo {shlex.quote(text)} ;;" for pattern, text in cases]
    rest = f"        *) {otherwise} ;;\n" if otherwise else ""
    return f"{name}() {{\n    case {over} in\n" + "\n".join(lines) + f"\n{rest}    esac\n}}\n"
