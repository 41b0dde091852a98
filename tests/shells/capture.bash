# Asks bash for the candidates of a command line: bash --norc capture.bash FOLDER 'rwkv-forge convert --to '
# FOLDER has the script as rwkv-forge.bash. Prints a candidate a line.
source "$1/rwkv-forge.bash"
registered=$(complete -p rwkv-forge) || exit 1
[[ $registered =~ -F\ ([^ ]+) ]] || exit 1
function=${BASH_REMATCH[1]}
COMP_LINE=$2
COMP_POINT=${#2}
read -ra COMP_WORDS <<< "$2"
[[ $2 == *' ' ]] && COMP_WORDS+=('')
COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
# Outside of the completion of a line there are no options to set.
compopt () { :; }
"$function" rwkv-forge "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
printf '%s\n' "${COMPREPLY[@]}"
