# Makes an interactive bash without a terminal the session of sandbox_eval: its first input, after which one request
# follows the other (bash_request in drivers.cpp). Interactive, because only such a bash gives up what it runs at
# SIGINT, whatever that is, and goes on with its next line of input.
#
# A request reads its code with `.`: code that is read so is not interactive (no "[1] 1234" for `sleep 9 &`, no "exit",
# no complaint that there is no terminal), and what it defines stays.
set +o history +H
PS1= PS2= HISTFILE=
unset MAILCHECK
# SIGINT counts from the start of a request's code to its end. It is ignored before the next line is read, so what
# the answer is written with cannot be interrupted.
PROMPT_COMMAND="{ builtin trap '' INT; } 2>/dev/null"
# Descriptors of its own: code may do `exec >file`. 96 holds stderr, which said nothing so far: starting without a
# terminal is worth two complaints.
exec 2>&96 98>&1 99>&2 96>&-
hutch_answer() {  # token, split
  builtin set -- "$?" "$@"
  [[ ${3-} ]] && builtin printf '\036%s\036' "$2" >&99
  builtin printf '\036%s{"exit_code":%d}\036' "$2" "$1" >&98
}
