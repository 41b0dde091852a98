# What the zsh that is asked runs first: candidates are printed instead of shown. The folder with the script is in $FOLDER.
PROMPT=
fpath=($FOLDER $fpath)
autoload -Uz compinit
compinit -u -D
bindkey '^M' undefined
bindkey '^J' undefined
bindkey '^I' complete-word
begin () { builtin print -r -- '<candidates>' }
finish () { builtin print -r -- '</candidates>'; exit }
compprefuncs=( begin )
comppostfuncs=( finish )
zstyle ':completion:*' insert-tab false
compadd () {
    # Those that only fill arrays are the completion system's own.
    if [[ ${@[1,(i)(-|--)]} == *-(O|A|D)\ * ]]; then
        builtin compadd "$@"
        return
    fi
    local -a hits
    builtin compadd -A hits "$@"
    local hit
    for hit in $hits; do builtin print -r -- "=$hit"; done
}
builtin print -r -- '<ready>'
