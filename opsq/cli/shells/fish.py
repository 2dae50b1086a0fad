"""The script for fish, with the help of each word."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from opsq.cli.shells.tree import Flag, Node

_HEAD = """\
# Completion of opsq for fish. Made by `opsq completion fish`. To have it:
#   opsq completion fish > ~/.config/fish/completions/opsq.fish

function __opsq_words
    set -l command (commandline -opc)
    $command[1] completion --words $argv[1] 2>/dev/null
end

# The words of a list that is separated by commas: what is there already, and each of the words.
function __opsq_list
    set -l current (commandline -ct | string replace -r '^--?[^=]*=' '')
    set -l before (string match -r '^.*,' -- $current)
    for word in (__opsq_words $argv[1])
        echo $before$word
    end
end

"""
_AT = """\
# Whether the cursor stands at this command; with a second word, at the argument of this number, or ("+") from it on.
function __opsq_at
    set -l words (commandline -opc)
    set -l path ""
    set -l skip 0
    set -l at 0
    for word in $words[2..-1]
        if test $skip = 1
            set skip 0
        else if string match -q -- '-*' $word
            if not string match -q -- '*=*' $word; and __opsq_takes "$path" $word
                set skip 1
            end
        else if contains -- $word (__opsq_below "$path")
            set path (string trim "$path $word")
            set at 0
        else
            set at (math $at + 1)
        end
    end
    test "$path" = "$argv[1]"; or return 1
    switch "$argv[2]"
        case ''
            return 0
        case '*+'
            test $at -ge (string trim -rc + $argv[2])
        case '*'
            test $at = $argv[2]
    end
end

complete -c opsq -f
"""


def script(nodes: Sequence[Node]) -> str:
    """The whole script."""
    return _HEAD + _below(nodes) + "\n" + _takes(nodes) + "\n" + _AT + "".join(f"{line}\n" for line in _lines(nodes))


def _below(nodes: Sequence[Node]) -> str:
    lines = ["function __opsq_below", "    switch $argv[1]"]
    for node in nodes:
        if node.below:
            lines += [
                f"        case {_quoted(node.path)}",
                f"            string split ' ' {_quoted(' '.join(node.below))}",
            ]
    return "\n".join([*lines, "    end", "end", ""])


def _takes(nodes: Sequence[Node]) -> str:
    """Whether an option has a value; those that all commands have come last."""
    shared = sorted(
        {name for node in nodes for flag in node.flags if flag.shared and flag.value is not None for name in flag.names}
    )
    lines = ["function __opsq_takes", '    switch "$argv[1] $argv[2]"']
    for node in nodes:
        names = [name for flag in node.flags if flag.value is not None and not flag.shared for name in flag.names]
        if names:
            lines.append("        case " + " ".join(_quoted(f"{node.path} {name}") for name in names))
            lines.append("            return 0")
    lines.append("        case " + " ".join(_quoted(f"* {name}") for name in shared))
    return "\n".join([*lines, "            return 0", "    end", "    return 1", "end", ""])


def _lines(nodes: Sequence[Node]) -> Iterator[str]:
    shared: dict[Flag, None] = {}
    for node in nodes:
        for name, help in node.below.items():
            yield f"complete -c opsq -n {_quoted(f'__opsq_at {_quoted(node.path)} 0')} -a {name} -d {_quoted(help)}"
        for flag in node.flags:
            if flag.shared:
                shared[flag] = None
            else:
                yield f"complete -c opsq -n {_quoted(f'__opsq_at {_quoted(node.path)}')} {_flag(flag)}"
        for at, kind in enumerate(node.arguments):
            if kind:
                number = f"{at}+" if at == len(node.arguments) - 1 else f"{at}"
                condition = _quoted(f"__opsq_at {_quoted(node.path)} {number}")
                yield f"complete -c opsq -n {condition} {_value(kind, '')}"
    for flag in shared:
        yield f"complete -c opsq {_flag(flag)}"


def _flag(flag: Flag) -> str:
    words = []
    for name in flag.names:
        words.append(f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}")
    if flag.value is not None:
        words.append(_value(flag.value, "-x ") if flag.value != "files" else "-r -F")
    return " ".join([*words, f"-d {_quoted(flag.help)}"])


def _value(kind: str, alone: str) -> str:
    if kind == "files":
        return "-F"
    if kind.startswith("="):
        return f"{alone}-a {_quoted(kind[1:])}"
    call = f"(__opsq_{'list' if alone else 'words'} {kind})"
    return f"{alone}-a {_quoted(call)}" if kind else alone.strip()


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
