"""The script for zsh, with the help of each word."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from opsq.cli.shells.tree import Node

_HEAD = """\
#compdef opsq
# Completion of opsq for zsh. Made by `opsq completion zsh`. To have it, one of
#   eval "$(opsq completion zsh)"       in ~/.zshrc, after compinit
#   opsq completion zsh > DIR/_opsq     in a DIR of $fpath

"""
_TAIL = """\

_opsq_kind() {
    case "$1" in
        "="*) compadd -- ${=1#=} ;;
        files) _files ;;
        "") ;;
        *)  local -a found
            found=(${(f)"$(${(Q)words[1]} completion --words "$1" 2>/dev/null)"})
            compset -P '*,'
            compadd -a found ;;
    esac
}

_opsq() {
    local word where="" skip="" before="" at=0
    local -a shown
    for word in ${words[2,CURRENT-1]}; do
        if [[ -n $skip ]]; then
            skip=""
        elif [[ $word == -* ]]; then
            if [[ $word != *=* ]] && _opsq_value "$where" "$word"; then skip=1; before=$word; fi
        elif _opsq_below "$where" && (( ${shown[(I)${word}:*]} )); then
            where="${where:+$where }$word"; at=0
        else
            (( at += 1 ))
        fi
    done
    if [[ -n $skip ]]; then
        _opsq_value "$where" "$before" && _opsq_kind "$REPLY"
    elif [[ ${words[CURRENT]} == --*=* ]]; then
        _opsq_value "$where" "${words[CURRENT]%%=*}" && compset -P '*=' && _opsq_kind "$REPLY"
    elif [[ ${words[CURRENT]} == -* ]]; then
        _opsq_flags "$where" && _describe -o option shown
    elif _opsq_below "$where"; then
        _describe command shown
    else
        _opsq_argument "$where" "$at" && _opsq_kind "$REPLY"
    fi
}

if [ "$funcstack[1]" = "_opsq" ]; then _opsq "$@"; else compdef _opsq opsq; fi
"""


def script(nodes: Sequence[Node]) -> str:
    """The whole script."""
    below = [(node.path, _described(node.below.items())) for node in nodes if node.below]
    flags = [(node.path, _described((name, f.help) for f in node.flags for name in f.names)) for node in nodes]
    return (
        _HEAD
        + "\n".join(
            (
                _function("_opsq_below", '"$1"', [(_quoted(path), f"shown=({words})") for path, words in below]),
                _function("_opsq_flags", '"$1"', [(_quoted(path), f"shown=({words})") for path, words in flags]),
                _function("_opsq_value", '"$1|$2"', _values(nodes)),
                _function("_opsq_argument", '"$1|$2"', _arguments(nodes)),
            )
        )
        + _TAIL
    )


def _values(nodes: Sequence[Node]) -> Iterable[tuple[str, str]]:
    for node in nodes:
        for flag in node.flags:
            if flag.value is not None and not flag.shared:
                keys = "|".join(_quoted(f"{node.path}|{name}") for name in flag.names)
                yield keys, f"REPLY={_quoted(flag.value)}"
    shared = {flag for node in nodes for flag in node.flags if flag.shared and flag.value is not None}
    for flag in sorted(shared, key=lambda flag: flag.names):
        keys = "|".join(f"*{_quoted(f'|{name}')}" for name in flag.names)
        yield keys, f"REPLY={_quoted(str(flag.value))}"


def _arguments(nodes: Sequence[Node]) -> Iterable[tuple[str, str]]:
    for node in nodes:
        for at, kind in enumerate(node.arguments):
            if kind:
                last = at == len(node.arguments) - 1
                key = f"{_quoted(f'{node.path}|')}*" if last else _quoted(f"{node.path}|{at}")
                yield key, f"REPLY={_quoted(kind)}"


def _described(words: Iterable[tuple[str, str]]) -> str:
    shown = (_quoted(f"{name}:{help}" if help else name) for name, help in words)
    return " ".join(shown)


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def _function(name: str, over: str, cases: Iterable[tuple[str, str]]) -> str:
    lines = [f"        {pattern}) {action} ;;" for pattern, action in cases]
    return f"{name}() {{\n    case {over} in\n" + "\n".join(lines) + "\n        *) return 1 ;;\n    esac\n}\n"
